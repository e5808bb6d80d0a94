package acl

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the golden files anew")

// goldenSubjects are the devices that every golden policy is compiled with.
var goldenSubjects = []Subject{
	subject("alice/laptop", "alice", nil, "10.77.0.2", "fd77::2"),
	subject("alice/phone", "alice", nil, "10.77.0.3", "fd77::3"),
	subject("bob/phone", "bob", nil, "10.77.0.4", "fd77::4"),
	subject("web1", "bob", []string{"tag:web"}, "10.77.0.5", "fd77::5"),
}

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
			r, err := Compile(p, testOptions, goldenSubjects)
			if err != nil {
				t.Fatal(err)
			}
			got := r.Dump(testNow)
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
