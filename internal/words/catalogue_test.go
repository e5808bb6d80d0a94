package words

import (
	"maps"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// forms are a text's forms that are not empty, by their CLDR name.
func (l *Language) forms(id string) map[string]string {
	m := map[string]string{}
	for name, text := range l.ForScripts(strings.SplitN(id, ".", 2)[0]).Texts[id] {
		m[name] = text
	}
	return m
}

// TestEveryLanguageHasEveryText: the same texts, with the same parameters, and every plural
// form that the language has.
func TestEveryLanguageHasEveryText(t *testing.T) {
	ids := map[string]bool{}
	for _, l := range All() {
		for id := range l.texts {
			ids[id] = true
		}
	}
	if len(ids) < 150 {
		t.Fatalf("only %d texts: the catalogue was not read", len(ids))
	}
	for _, id := range slices.Sorted(maps.Keys(ids)) {
		want, ok := English().Parameters(id)
		if !ok {
			t.Errorf("%s is missing in English", id)
			continue
		}
		for _, l := range All() {
			got, ok := l.Parameters(id)
			if !ok {
				t.Errorf("%s is missing in %s", id, l.Name())
				continue
			}
			if !slices.Equal(got, want) && id != "time.exactly" { // in English it is as vpnctl writes times
				t.Errorf("%s takes %v in %s, %v in English", id, got, l.Name(), want)
			}
			for form, text := range l.forms(id) {
				if _, err := (parser{}).Parse(text, "", ""); err != nil {
					t.Errorf("%s in %s, %s: %v", id, l.Name(), form, err)
				}
			}
			if len(l.forms(id)) == 1 {
				continue
			}
			values := map[string]any{}
			for _, p := range got {
				values[p] = "7"
			}
			for _, count := range []int{0, 1, 2, 11, 21, 1_000_000} {
				values["count"] = count
				if got := l.say(id, values, false); got == id {
					t.Errorf("%s in %s has no form for %d", id, l.Name(), count)
				}
			}
		}
	}
}

// TestMarkup: a text has no mark-up but <b>, and none at all where it is shown as text.
func TestMarkup(t *testing.T) {
	tag := regexp.MustCompile(`</?b>`)
	for _, l := range All() {
		for id := range l.texts {
			section, _, _ := strings.Cut(id, ".")
			plain := slices.Contains([]string{"refusal", "refusal_unknown", "app_refusal", "api", "code", "ended", "enrolling", "drop", "time", "size", "language"}, section)
			for _, text := range l.forms(id) {
				rest := text
				if !plain {
					rest = tag.ReplaceAllString(text, "")
				}
				if strings.ContainsAny(rest, "<>&") || strings.Count(text, "<b>") != strings.Count(text, "</b>") {
					t.Errorf("%s in %s: mark-up in %q", id, l.Name(), text)
				}
			}
		}
	}
}

// commands are what a person types, in every language alike.
var commands = regexp.MustCompile("`[^`]*`")

// TestTypography: the marks that each language's printers use, and no double space.
func TestTypography(t *testing.T) {
	wrong := map[string][]*regexp.Regexp{
		"en": {regexp.MustCompile(`['"]`), regexp.MustCompile(` {2}`), regexp.MustCompile(`[«»\x{a0}\x{202f}]`)},
		"fr": {
			regexp.MustCompile(`['"“”]`), regexp.MustCompile(` {2}`),
			regexp.MustCompile(`[^\x{202f}][;!?]`),                            // a narrow no-break space before these
			regexp.MustCompile(`[^\x{a0}]:([^/]|$)`),                          // a no-break space before a colon, but in an address
			regexp.MustCompile(`«[^\x{a0}]|[^\x{a0}]»`),                       // and within guillemets
			regexp.MustCompile(`[0-9}] (secondes|octets|h|min|s)([^\pL’]|$)`), // a number stays with its unit
		},
	}
	for _, l := range All() {
		for id := range l.texts {
			if id == "language.quoted" { // in English it is for terminals, too
				continue
			}
			for form, text := range l.forms(id) {
				text = commands.ReplaceAllString(text, "`")
				text = placeholder.ReplaceAllString(text, "{}")
				for _, re := range wrong[l.Code] {
					if m := re.FindString(text); m != "" {
						t.Errorf("%s in %s, %s: %q in %q", id, l.Name(), form, m, text)
					}
				}
			}
		}
	}
}

// TestFrenchSaysVous: the pages speak to a person whom they do not know, and use the words
// that French administrators use.
func TestFrenchSaysVous(t *testing.T) {
	wrong := regexp.MustCompile(`(?i)(^|\PL)(tu|ton|tes|toi|gateway|login|loguer|device|token|digital|supporter|email|mail|cliquez ici)(\PL|$)`)
	for id := range For("fr").texts {
		for _, text := range For("fr").forms(id) {
			if m := wrong.FindString(placeholder.ReplaceAllString(commands.ReplaceAllString(text, ""), "")); m != "" {
				t.Errorf("%s: %q in %q", id, m, text)
			}
		}
	}
}
