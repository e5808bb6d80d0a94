package rules_test

import (
	"fmt"
	"strings"
	"testing"

	"vpnd/acl/acltest"
	"vpnd/acl/language"
	"vpnd/acl/rules"
)

// A policy that comes to more disjoint prefixes than a gateway keeps is refused, as destinations
// and as sources: it is not cut off there.
func TestTooManyPrefixes(t *testing.T) {
	var hosts strings.Builder // each is a hole in ::/0, which takes 128 prefixes to go round
	for i := range 6000 {
		fmt.Fprintf(&hosts, `"%x:%x::1",`, 0x2000+i, 0x8000^i)
	}
	for name, text := range map[string]string{
		"destinations": `{"grants": [{"src": ["*"], "dst": ["::/0"], "ip": ["tcp:1"]}, {"src": ["*"], "dst": [` + hosts.String() + `], "ip": ["tcp:2"]}]}`,
		"sources":      `{"grants": [{"src": ["::/0"], "dst": ["*"], "ip": ["tcp:1"]}, {"src": [` + hosts.String() + `], "dst": ["*"], "ip": ["tcp:2"]}]}`,
	} {
		p, err := language.Parse([]byte(text))
		if err != nil {
			t.Fatal(err)
		}
		_, err = rules.Compile(p, acltest.Small, nil)
		list, ok := err.(language.ErrorList)
		if !ok || list[len(list)-1].Code != language.CodeOverBudget || !strings.Contains(err.Error(), "disjoint prefixes") {
			t.Errorf("%s: %.200v", name, err)
		}
	}
}
