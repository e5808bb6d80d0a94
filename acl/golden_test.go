package acl

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
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
			p, err := Parse(text)
			if err != nil {
				t.Fatal(err)
			}
			r, err := Compile(p, Small, Few)
			if err != nil {
				t.Fatal(err)
			}
			got := r.Dump(Now)
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
