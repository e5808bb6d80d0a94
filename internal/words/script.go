package words

import (
	_ "embed" // the script
	"slices"
	"strings"
)

// Script is the module that pages import as words.js: it says the texts that the page
// brought along, and writes times and numbers, by Intl.
//
//go:embed words.js
var Script []byte

// Scripted is what a page brings along for its scripts, as JSON in
// <script type="application/json" id="words">.
type Scripted struct {
	Language string                       `json:"language"`
	Texts    map[string]map[string]string `json:"texts"` // by id, by plural form
}

// ForScripts are the texts of some sections of the catalogue.
func (l *Language) ForScripts(sections ...string) Scripted {
	s := Scripted{l.Code, map[string]map[string]string{}}
	for id, m := range l.texts {
		section, _, _ := strings.Cut(id, ".")
		if !slices.Contains(sections, section) {
			continue
		}
		forms := map[string]string{}
		for form, text := range map[string]string{"one": m.One, "many": m.Many, "other": m.Other} {
			if text != "" {
				forms[form] = text
			}
		}
		s.Texts[id] = forms
	}
	return s
}
