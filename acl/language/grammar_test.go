package language_test

import (
	"strconv"
	"strings"
	"testing"

	"vpnd/acl/acltest"
	"vpnd/acl/language"
)

// TestDocComplete: the page has every word of the grammar, and every form that is refused
// by name.
func TestDocComplete(t *testing.T) {
	text, parts, err := acltest.ReadDoc("../../docs/policy.md")
	if err != nil {
		t.Fatal(err)
	}
	var policies strings.Builder
	tables := map[string][][]string{}
	for _, p := range parts {
		if p.Info == "hujson" {
			policies.WriteString(p.Text())
		}
		if strings.HasPrefix(p.Info, "|") {
			tables[p.Info] = append(tables[p.Info], p.Cells()...)
		}
	}
	for _, names := range [][]string{language.File.Fields, language.AGrant.Fields, language.AnACL.Fields, language.AResource.Fields, language.ATest.Fields} {
		for _, n := range names {
			if !strings.Contains(policies.String(), strconv.Quote(n)+":") {
				t.Errorf("no example has %q", n)
			}
		}
	}
	words, foreign := language.Forms()
	for _, n := range words {
		if !strings.Contains(text, "`"+n+"`") {
			t.Errorf("the page does not name %s", n)
		}
	}
	for header, want := range map[string]map[string]string{
		"| in a policy | instead |":              language.File.Foreign,
		"| in a grant | instead |":               language.AGrant.Foreign,
		"| in an entry of `acls` | instead |":    language.AnACL.Foreign,
		"| in a test | instead |":                language.ATest.Foreign,
		"| as source or destination | instead |": foreign,
	} {
		if said := acltest.SameTable(tables[header], want); said != "" {
			t.Errorf("%s\n%s", header, said)
		}
	}
}
