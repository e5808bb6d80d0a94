package acl

import (
	"maps"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// TestDocComplete: the page has every word of the grammar, and every form that is refused
// by name.
func TestDocComplete(t *testing.T) {
	text, parts, err := ReadDoc("../docs/policy.md")
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
	for _, names := range [][]string{file.names(), grantObject.names(), aclObject.names(), testObject.names()} {
		for _, n := range names {
			if !strings.Contains(policies.String(), strconv.Quote(n)+":") {
				t.Errorf("no example has %q", n)
			}
		}
	}
	for _, n := range slices.Concat(slices.Collect(maps.Keys(autogroups)), slices.Collect(maps.Keys(protocols))) {
		if !strings.Contains(text, "`"+n+"`") {
			t.Errorf("the page does not name %s", n)
		}
	}
	targets := map[string]string{}
	for _, f := range foreignTargets {
		targets[f.prefix] = f.instead
	}
	for header, want := range map[string]map[string]string{
		"| in a policy | instead |":              file.foreign,
		"| in a grant | instead |":               grantObject.foreign,
		"| in an entry of `acls` | instead |":    aclObject.foreign,
		"| in a test | instead |":                testObject.foreign,
		"| as source or destination | instead |": targets,
	} {
		if said := SameTable(tables[header], want); said != "" {
			t.Errorf("%s\n%s", header, said)
		}
	}
}
