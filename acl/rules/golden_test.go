package rules_test

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"vpnd/acl/acltest"
	"vpnd/acl/language"
	"vpnd/acl/rules"
)

var update = flag.Bool("update", false, "write the golden files anew")

// TestGolden compiles testdata/*.hujson and holds the dumps against *.rules.
func TestGolden(t *testing.T) {
	policies, err := filepath.Glob("testdata/*.hujson")
	if err != nil || len(policies) == 0 {
		t.Fatal("no golden policies", err)
	}
	for _, file := range policies {
		t.Run(filepath.Base(file), func(t *testing.T) {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			p, err := language.Parse(text)
			if err != nil {
				t.Fatal(err)
			}
			r, err := rules.Compile(p, acltest.Small, acltest.Few)
			if err != nil {
				t.Fatal(err)
			}
			got := r.Dump(acltest.Now)
			rules := strings.TrimSuffix(file, ".hujson") + ".rules"
			if *update {
				if err := os.WriteFile(rules, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(rules)
			if err != nil {
				t.Fatal(err)
			}
			if got != string(want) {
				t.Errorf("got\n%s\nwant\n%s", got, want)
			}
		})
	}
}
