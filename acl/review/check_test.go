package review_test

import (
	"fmt"
	"strings"
	"testing"

	"vpnd/acl/acltest"
	"vpnd/acl/language"
	"vpnd/acl/review"
	"vpnd/acl/rules"
)

func TestCompileErrors(t *testing.T) {
	subjects := []rules.Subject{
		acltest.Device("alice/laptop", "Alice", nil, "10.77.0.2", "fd77::2"),
		acltest.Device("bob/phone", "bob", nil, "10.77.0.3", "fd77::3"),
		acltest.Device("web1", "bob", []string{"tag:web"}, "10.77.0.4", "fd77::4"),
	}
	options := acltest.Small
	options.Users = []string{"Alice", "bob", "carol"}
	head := `{"hosts": {"db": "10.1.2.3", "net": "10.1.0.0/16"}, "groups": {"group:ops": ["alice"]}, "tagOwners": {"tag:web": []}, "grants": [
{"src": ["group:ops"], "dst": ["net"], "ip": ["tcp:22,5432", "icmp"]},
{"src": ["autogroup:member"], "dst": ["tag:web"], "ip": ["443"], "hours": "Mon 08:00-09:00 UTC"},
{"src": ["autogroup:member"], "dst": ["autogroup:self"], "ip": ["tcp:22"], "mfa": "15m"},
{"src": ["bob"], "dst": ["10.1.2.0/25"], "ip": ["udp:53"], "expires": "2020-01-01T00:00:00Z"},
`
	for _, test := range []struct {
		more string // of grants and after them
		want string // "" is no fault at all
	}{
		{`]}`, ``},
		{`{"src": ["*"], "dst": ["db"], "ip": ["1"], "mfa": "13h"}]}`, `6:51: the code of 13h0m0s is older than a session gets, 12h0m0s`},
		{`{"src": ["dave"], "dst": ["db"], "ip": ["1"]}]}`, `6:10: warning: there is no user "dave" yet`},
		{`{"src": ["carol"], "dst": ["dd"], "ip": ["1"]}]}`, `6:28: there is no resource, host or user "dd": define it in "resources" or "hosts", or write "dd@" for a user who is to come`},
		{`{"src": ["carol"], "dst": ["dd@"], "ip": ["1"]}]}`, `6:28: warning: there is no user "dd" yet`},
		{`], "tests": [{"src": "alice", "deny": ["dd:22"]}]}`, `6:40: there is no resource, host or user "dd": define it in "resources"`},
		{`], "tests": [{"src": "alice", "deny": ["dd@:22"]}]}`, `6:40: warning: there is no user "dd" yet`},
		{`], "tests": [{"src": "alice", "accept": ["db:22", "db:5432", "net:22"], "deny": ["db:23", "db:53", "*:443"]}]}`, `6:100: the test fails: alice/laptop (10.77.0.2) reaches web1 (10.77.0.4) by the grant in line 3`},
		{`], "tests": [{"src": "alice", "accept": ["db:22", "db:5432", "net:22", "tag:web:443"], "deny": ["db:23", "db:53", "app:*"]}]}`, ``},
		{`], "tests": [{"src": "alice", "proto": "udp", "deny": ["db:22"], "accept": ["tag:web:443"]}]}`, ``},
		{`], "tests": [{"src": "alice", "proto": "icmp", "accept": ["db:*", "tag:web:*"], "deny": ["app:*"]}]}`, ``},
		{`], "tests": [{"src": "bob", "accept": ["db:22"]}]}`, `6:40: the test fails: bob/phone (10.77.0.3) does not reach 10.1.2.3 at port 22`},
		{`], "tests": [{"src": ["alice", "bob"], "accept": ["autogroup:self:22"], "deny": ["autogroup:self:23"]}]}`, ``},
		{`], "tests": [{"src": "alice", "deny": ["bob:22"]}]}`, ``},
		{`], "tests": [{"src": "alice", "accept": ["alice:22"]}]}`, ``},
		{`], "tests": [{"src": "tag:web", "deny": ["bob:22", "tag:web:*", "db:*"]}]}`, ``},
		{`], "tests": [{"src": "autogroup:member", "accept": ["db:22"]}]}`, `6:53: the test fails: bob/phone (10.77.0.3) does not reach`},
		{`], "tests": [{"src": "bob", "deny": ["db:53"]}]}`, `6:38: the test fails: bob/phone (10.77.0.3) reaches 10.1.2.3 by the grant in line 5`},
		{`], "tests": [{"src": "group:ops", "accept": ["10.0.0.0/8:22"]}]}`, `does not reach`},
		{`], "tests": [{"src": "192.168.0.1", "deny": ["db:*", "*:*"]}]}`, ``},
		{`], "tests": [{"src": "fd77::2", "accept": ["db:22"]}]}`, `6:44: the test fails: no address of fd77::2 can reach an address of db:22`},
		{`], "tests": [{"src": "carol", "accept": ["autogroup:self:22", "tag:web:443"], "deny": ["db:22"]}]}`, ``},
	} {
		p, err := language.Parse([]byte(head + test.more))
		if err != nil {
			t.Errorf("%s: %v", test.more, err)
			continue
		}
		_, list := review.Check(p, options, subjects)
		got := list.Error()
		if test.want == "" && got != "" || !strings.Contains(got, test.want) || strings.Contains(got, "\n") {
			t.Errorf("%s\ngot  %s\nwant %s", test.more, got, test.want)
		}
		// Once it is in force, nothing of this refuses it.
		stored := options
		stored.Stored = true
		if _, err := rules.Compile(p, stored, subjects); err != nil {
			t.Errorf("%s: stored, but refused: %v", test.more, err)
		}
	}
	p, _ := language.Parse(nil)
	if _, err := rules.Compile(p, rules.Options{}, nil); err == nil {
		t.Error("a session length of nothing would make every grant an \"off\" grant")
	}
}

// TestManyWarnings: a crowd of people who are to come neither refuses a policy nor hides
// what does.
func TestManyWarnings(t *testing.T) {
	const maxErrors = 1000 // faults that are told of one text
	var users strings.Builder
	for i := range 2 * maxErrors {
		fmt.Fprintf(&users, "%q,", fmt.Sprintf("u%d", i))
	}
	options := acltest.Small
	options.Users = []string{"alice"}
	for tests, want := range map[string]string{
		`{"src": "alice", "deny": ["app:2"]}`:   "warning: and 1000 faults more",
		`{"src": "alice", "accept": ["app:2"]}`: "the test fails: alice does not reach",
	} {
		p, err := language.Parse([]byte(`{"grants": [{"src": [` + users.String() + `], "dst": ["app"], "ip": ["tcp:1"]}], "tests": [` + tests + `]}`))
		if err != nil {
			t.Fatal(err)
		}
		_, list := review.Check(p, options, nil)
		if list.Fatal() == (want[:7] == "warning") || !strings.Contains(list.Error(), want) || len(list) > 2*(maxErrors+1) {
			t.Errorf("%s: %d faults, fatal %v, without %q", tests, len(list), list.Fatal(), want)
		}
	}
}

// Another control server (Headscale) let a test pass if any one host of a tag was reachable.
func TestTestsLookAtEveryHostOfATag(t *testing.T) {
	subjects := []rules.Subject{
		acltest.Device("alice/laptop", "alice", nil, "10.77.0.2"),
		acltest.Device("ops/web1", "ops", []string{"tag:web"}, "10.77.0.4"),
		acltest.Device("ops/web2", "ops", []string{"tag:web", "tag:new"}, "10.77.0.5"),
	}
	compile := func(text string) error {
		p, err := language.Parse([]byte(text))
		if err != nil {
			return err
		}
		if _, list := review.Check(p, acltest.Small, subjects); list.Fatal() {
			return list
		}
		return nil
	}
	const owners = `"tagOwners": {"tag:web": ["ops"], "tag:new": ["ops"]}, `
	// Of two web servers she reaches one: "accept" does not hold, nor does "deny".
	const one = `{` + owners + `"grants": [{"src": ["alice"], "dst": ["tag:new"], "ip": ["tcp:443"]}], "tests": [{"src": "alice", `
	if err := compile(one + `"accept": ["tag:web:443"]}]}`); err == nil || !strings.Contains(err.Error(), "web1") {
		t.Errorf("one of two hosts is reachable, and the test says %v", err)
	}
	if err := compile(one + `"deny": ["tag:web:443"]}]}`); err == nil || !strings.Contains(err.Error(), "web2") {
		t.Errorf("one of two hosts is reachable, and the test of the contrary says %v", err)
	}
	if err := compile(`{` + owners + `"grants": [{"src": ["alice"], "dst": ["tag:web"], "ip": ["tcp:443"]}], "tests": [{"src": "alice", "accept": ["tag:web:443"]}]}`); err != nil {
		t.Errorf("both are reachable: %v", err)
	}
}
