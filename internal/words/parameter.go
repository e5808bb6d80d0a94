package words

import (
	"errors"
	"fmt"
	"html"
	"html/template"
	"regexp"
	"slices"
	"strings"

	i18ntemplate "github.com/nicksnyder/go-i18n/v2/i18n/template"
)

// placeholder stands for a parameter: {name}, or {name, kind} for one that the language
// writes in a way of its own: a number, a time, a duration, a size. words.js reads the same.
var placeholder = regexp.MustCompile(`\{([a-z_]+)(?:, ([a-z]+))?\}`)

// parser reads the catalogue's texts for go-i18n.
type parser struct{}

// Cacheable implements go-i18n's template.Parser.
func (parser) Cacheable() bool { return true }

// Parse implements go-i18n's template.Parser.
func (parser) Parse(src, _, _ string) (i18ntemplate.ParsedTemplate, error) {
	rest := placeholder.ReplaceAllString(src, "")
	if strings.ContainsAny(rest, "{}") {
		return nil, fmt.Errorf("a placeholder is {name} or {name, kind}: %q", src)
	}
	return text(src), nil
}

type text string

// saying is one use of a text: by whom, with what.
type saying struct {
	*Language
	values map[string]any
	markup bool
}

// Execute implements go-i18n's template.ParsedTemplate.
func (t text) Execute(data any) (string, error) {
	s, ok := data.(*saying)
	if !ok {
		return "", errors.New("a text needs its parameters")
	}
	var failed error
	out := placeholder.ReplaceAllStringFunc(string(t), func(p string) string {
		m := placeholder.FindStringSubmatch(p)
		v, ok := s.values[m[1]]
		if !ok {
			failed = fmt.Errorf("no parameter %q", m[1])
			return ""
		}
		if h, ok := v.(template.HTML); ok && s.markup {
			return string(h)
		}
		w, err := s.write(v, m[2])
		if err != nil {
			failed = fmt.Errorf("parameter %q: %w", m[1], err)
		}
		if s.markup {
			w = html.EscapeString(w)
		}
		return w
	})
	return out, failed
}

// Parameters are the names that a text of the catalogue takes, sorted; false if there is
// no such text.
func (l *Language) Parameters(id string) ([]string, bool) {
	m, ok := l.texts[id]
	if !ok {
		return nil, false
	}
	names := []string{}
	for _, form := range []string{m.One, m.Many, m.Other} {
		for _, p := range placeholder.FindAllStringSubmatch(form, -1) {
			names = append(names, p[1])
		}
	}
	slices.Sort(names)
	return slices.Compact(names), true
}
