package rules_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"vpnd/acl/acltest"
	"vpnd/acl/language"
	"vpnd/acl/rules"
)

func compileStored(t *testing.T, text string, o rules.Options, subjects []rules.Subject) *rules.Ruleset {
	t.Helper()
	o.Stored = true
	r, err := rules.Compile(language.ParseStored([]byte(text)), o, subjects)
	if err != nil {
		t.Fatalf("what was accepted is refused: %v\n%.2000s", err, text)
	}
	return r
}

// TestStored compiles the recorded policies of testdata/stored as what is in force: those
// that this version would refuse give what is left of them, and say what is not.
func TestStored(t *testing.T) {
	policies, err := filepath.Glob("testdata/stored/*.hujson")
	if err != nil || len(policies) < 3 {
		t.Fatal("no recorded policies", err)
	}
	for _, file := range policies {
		t.Run(filepath.Base(file), func(t *testing.T) {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := language.Parse(text); err == nil {
				t.Error("as a new text it is not refused: it shows nothing")
			}
			r := compileStored(t, string(text), acltest.Small, acltest.Few)
			got := "ignored\n" + r.Policy().Ignored().Error() + "\n" + r.Dump(acltest.Now)
			golden := strings.TrimSuffix(file, ".hujson") + ".rules"
			if *update {
				if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if got != string(want) {
				t.Errorf("got\n%s\nwant\n%s", got, want)
			}
		})
	}
}

// TestStoredOthersHold breaks grants of random policies: all others hold as if those were
// not there.
func TestStoredOthersHold(t *testing.T) {
	broken := []string{
		`{"src": ["h0"], "dst": ["autogroup:self", "*"], "ip": ["*"], "mfa": "off"}`, `{"src": ["*", "tag:no"], "dst": ["*"], "ip": ["*"]}`,
		`{"src": ["autogroup:member"], "dst": ["*"], "ip": ["*"], "later": true}`, `{"src": ["autogroup:member"], "dst": ["*"], "ip": ["*", "tcp:http"]}`,
		`{"src": ["alice", "group:none"], "dst": ["*"], "ip": ["*"], "hours": "always"}`, `7`,
	}
	for seed := range uint64(60) {
		rng := rand.New(rand.NewPCG(seed, 14))
		w := acltest.Random(rng, 1+rng.IntN(12))
		if p := language.ParseStored(w.Text()); len(p.Ignored()) > 0 {
			t.Fatalf("seed %d: nothing of it is refused, but this is ignored: %v\n%s", seed, p.Ignored(), w.Text())
		}
		text, n := string(w.Text()), 0
		for range 1 + rng.IntN(4) {
			section := "  \"grants\": [\n"
			i := strings.Index(text, section) + len(section)
			for k := rng.IntN(4); k > 0 && text[i:] != "" && strings.HasPrefix(text[i:], "    {"); k-- {
				i += strings.IndexByte(text[i:], '\n') + 1
			}
			text = text[:i] + broken[rng.IntN(len(broken))] + ",\n" + text[i:]
			n++
		}
		r := compileStored(t, text, w.Options, w.Subjects)
		if list := r.Policy().Ignored(); len(list) != n || list.Fatal() {
			t.Fatalf("seed %d: %d grants are broken, and it says %v\n%s", seed, n, list, text)
		}
		addrs := w.Addrs()
		for range 100 {
			if p := w.Packet(rng, addrs, acltest.Now); r.Verdict(p, acltest.Now).Allow != w.Judge(p, acltest.Now) {
				t.Fatalf("seed %d: %+v\n%s", seed, p, text)
			}
		}
	}
}

// TestStoredOverBudget: a policy that costs more than a new one may stays in force.
func TestStoredOverBudget(t *testing.T) {
	text := conditions(1200)
	p, err := language.Parse([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := rules.Compile(p, acltest.Small, nil); err == nil || !strings.Contains(err.Error(), "up to here the policy takes") {
		t.Fatalf("it is not over the budget: %v", err)
	}
	r := compileStored(t, text, acltest.Small, []rules.Subject{acltest.Device("d", "u1199", nil, "10.77.0.2")})
	if list := r.Policy().Ignored(); len(list) > 0 {
		t.Errorf("it is ignored: %v", list)
	}
	if n := len(r.Grants()); n != 1200 {
		t.Errorf("%d grants are left", n)
	}
}

// conditions is a policy of n grants with ranges of ports that cross and conditions of
// their own.
func conditions(n int) string {
	var b strings.Builder
	b.WriteString(`{"grants": [`)
	for i := range n {
		fmt.Fprintf(&b, `{"src":["u%d"],"dst":["10.0.0.1"],"ip":["tcp:%d-%d"],"mfa":"%ds"},`, i, 1+i*3, 40000+i*2, 60+i)
	}
	return b.String() + `]}`
}
