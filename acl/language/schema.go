package language

import (
	"encoding/json"
	"maps"
)

//go:generate go test -run ^TestSchemaFile$ . -update

// Schema is a JSON Schema (draft 2020-12) of policies, for editors. It is made from the
// definitions that Parse reads by: whatever Parse takes, it takes. What a schema cannot
// say, such as that a group exists, only Parse refuses.
func Schema() []byte {
	root := resolved(file.schema())
	root["$schema"] = "https://json-schema.org/draft/2020-12/schema"
	root["title"] = "vpnd policy"
	// Words of VS Code's, which other validators ignore: the file is HuJSON.
	root["allowComments"], root["allowTrailingCommas"] = true, true
	out, err := json.MarshalIndent(root, "", "  ")
	if err != nil {
		panic("language: the schema is not JSON: " + err.Error()) // it is made of constants
	}
	return append(out, '\n')
}

// resolved puts the objects of the grammar in where they are named.
func resolved(k kind) kind {
	if o, ok := k["$object"].(func() node); ok {
		return resolved(o().schema())
	}
	out := maps.Clone(k)
	for name, v := range out {
		switch v := v.(type) {
		case kind:
			out[name] = resolved(v)
		case []any:
			list := make([]any, len(v))
			for i := range v {
				list[i] = v[i]
				if x, ok := v[i].(kind); ok {
					list[i] = resolved(x)
				}
			}
			out[name] = list
		}
	}
	return out
}
