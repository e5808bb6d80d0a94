package acltest

import (
	"encoding/json"
	"fmt"
	"math"
	"regexp"

	"github.com/tailscale/hujson"

	"vpnd/acl/language"
)

// conforms is as much of a JSON Schema validator as Schema needs.
func conforms(schema map[string]any, v any, path string) error {
	for key := range schema {
		switch key {
		case "$schema", "title", "description", "type", "properties", "required", "additionalProperties", "propertyNames", "items", "anyOf", "pattern", "const", "maxLength", "minimum", "maximum", "format",
			"allowComments", "allowTrailingCommas":
		default:
			return fmt.Errorf("the schema says %q, which this test does not know", key)
		}
	}
	if list, ok := schema["anyOf"].([]any); ok {
		var err error
		for _, s := range list {
			if err = conforms(s.(map[string]any), v, path); err == nil {
				return nil
			}
		}
		return err
	}
	if c, ok := schema["const"]; ok && v != c {
		return fmt.Errorf("%s is not %v", path, c)
	}
	switch schema["type"] {
	case "object":
		o, ok := v.(map[string]any)
		if !ok {
			return fmt.Errorf("%s is no object", path)
		}
		properties, _ := schema["properties"].(map[string]any)
		required, _ := schema["required"].([]any)
		for _, r := range required {
			if _, ok := o[r.(string)]; !ok {
				return fmt.Errorf("%s lacks %s", path, r)
			}
		}
		for name, x := range o {
			if names, ok := schema["propertyNames"].(map[string]any); ok {
				if err := conforms(names, name, path+"/"+name); err != nil {
					return err
				}
			}
			if s, ok := properties[name].(map[string]any); ok {
				if err := conforms(s, x, path+"/"+name); err != nil {
					return err
				}
				continue
			}
			s, ok := schema["additionalProperties"].(map[string]any)
			if !ok {
				return fmt.Errorf("%s has an unknown %s", path, name)
			}
			if err := conforms(s, x, path+"/"+name); err != nil {
				return err
			}
		}
	case "array":
		list, ok := v.([]any)
		if !ok {
			return fmt.Errorf("%s is no array", path)
		}
		for i, x := range list {
			if err := conforms(schema["items"].(map[string]any), x, fmt.Sprintf("%s/%d", path, i)); err != nil {
				return err
			}
		}
	case "integer":
		n, ok := v.(float64)
		if !ok || n != math.Trunc(n) {
			return fmt.Errorf("%s is no whole number", path)
		}
		if least, ok := schema["minimum"].(float64); ok && n < least {
			return fmt.Errorf("%s is less than %v", path, least)
		}
		if most, ok := schema["maximum"].(float64); ok && n > most {
			return fmt.Errorf("%s is more than %v", path, most)
		}
	case "string":
		s, ok := v.(string)
		if !ok {
			return fmt.Errorf("%s is no string", path)
		}
		if p, ok := schema["pattern"].(string); ok && !regexp.MustCompile(p).MatchString(s) {
			return fmt.Errorf("%s is %q, which is not %s", path, s, p)
		}
		if n, ok := schema["maxLength"].(float64); ok && len([]rune(s)) > int(n) {
			return fmt.Errorf("%s is too long", path)
		}
	}
	return nil
}

// Conforms tells whether the JSON Schema takes a policy's text.
func Conforms(text []byte) error {
	var schema map[string]any
	if err := json.Unmarshal(language.Schema(), &schema); err != nil {
		return err
	}
	plain, err := hujson.Standardize(text)
	if err != nil {
		return err
	}
	var v any
	if err := json.Unmarshal(plain, &v); err != nil {
		return err
	}
	return conforms(schema, v, "")
}
