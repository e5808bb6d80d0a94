package language_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"vpnd/acl/acltest"
	"vpnd/acl/language"
)

var update = flag.Bool("update", false, "write the schema's file anew")

// TestSchemaFile: the copy for editors is of today; "make generate" writes it anew.
func TestSchemaFile(t *testing.T) {
	const file = "../../docs/policy.schema.json"
	if *update {
		if err := os.WriteFile(file, language.Schema(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, language.Schema()) {
		t.Errorf("%s is not what Schema says: run make generate", file)
	}
}

// TestSchemaAgrees: what Parse takes, the schema takes; and a policy that is broken in
// its structure at any place is refused by both.
func TestSchemaAgrees(t *testing.T) {
	t.Parallel()
	texts := [][]byte{[]byte(language.DefaultPolicy()), []byte(everyField)}
	golden, _ := filepath.Glob("testdata/*.hujson")
	for _, f := range golden {
		text, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		texts = append(texts, text)
	}
	for _, text := range append(texts, language.AcceptedTexts()...) {
		if len(strings.TrimSpace(string(text))) == 0 {
			continue
		}
		if _, err := language.Parse(text); err != nil {
			t.Fatal(err)
		}
		if err := acltest.Conforms(text); err != nil {
			t.Errorf("Parse takes it, the schema does not: %v\n%s", err, text)
		}
	}
	var whole any
	if err := json.Unmarshal([]byte(everyField), &whole); err != nil {
		t.Fatal(err)
	}
	broken := 0
	mutate(whole, func(what string) {
		text, err := json.Marshal(whole)
		if err != nil {
			t.Fatal(err)
		}
		broken++
		if _, err := language.Parse(text); err == nil {
			t.Errorf("Parse takes it with %s", what)
		}
		if acltest.Conforms(text) == nil {
			t.Errorf("the schema takes it with %s", what)
		}
	})
	if broken < 50 {
		t.Errorf("only %d ways to break it were tried", broken)
	}
	// Every field of the grammar stands in everyField, so none is left out above.
	for _, names := range [][]string{language.File.Fields, language.AGrant.Fields, language.AnACL.Fields, language.AResource.Fields, language.ATest.Fields} {
		for _, n := range names {
			if !strings.Contains(everyField, `"`+n+`"`) {
				t.Errorf("everyField has no %q", n)
			}
		}
	}
}

// everyField is a policy with every field of the grammar.
const everyField = `{
	"groups": {"group:a": ["alice"]},
	"hosts": {"db": "10.1.2.3"},
	"resources": {
		"wiki": {"to": "http://localhost:3000", "port": 8080, "title": "Wiki", "note": "why", "from": "gateway"},
		"nas": {"to": "nas.lan", "ports": ["tcp:445"], "proxy": "v2"}
	},
	"ipsets": {"ipset:a": ["add 10.0.0.0/8"]},
	"tagOwners": {"tag:a": ["alice"]},
	"acls": [{"action": "accept", "src": ["alice"], "proto": "tcp", "dst": ["db:443"]}],
	"grants": [{"src": ["alice"], "dst": ["db"], "ip": ["tcp:443"], "mfa": "15m", "hours": "Mon 08:00-18:00 UTC", "expires": "2026-12-31T18:00:00Z", "note": "why"}],
	"tests": [{"src": "alice", "proto": "tcp", "accept": ["db:443"], "deny": ["db:22"]}]
}`

// mutate breaks each part of v in turn, calls check, and mends it again.
func mutate(v any, check func(what string)) {
	switch v := v.(type) {
	case map[string]any:
		keys := []string{}
		for k := range v {
			keys = append(keys, k)
		}
		slices.Sort(keys)
		for _, k := range keys {
			old := v[k]
			v[k] = 7.0
			if k == "port" {
				v[k] = 70000.0
			}
			check(k + " a number")
			v[k] = nil
			check(k + " null")
			if _, isList := old.([]any); isList {
				v[k] = map[string]any{}
				check(k + " an object")
			}
			v[k] = old
			mutate(old, check)
			if k == "action" || k == "src" || k == "dst" || k == "to" { // a grant of resources needs no "ip"
				delete(v, k)
				check(k + " left out")
				v[k] = old
			}
			if k == "db" || k == "wiki" || k == "nas" {
				continue // hosts and resources may have any name
			}
			delete(v, k)
			v["x"+k] = old
			check("x" + k)
			delete(v, "x"+k)
			v[k] = old
		}
	case []any:
		for i, old := range v {
			v[i] = 7.0
			check(fmt.Sprintf("element %d a number", i))
			v[i] = old
			mutate(old, check)
		}
	}
}
