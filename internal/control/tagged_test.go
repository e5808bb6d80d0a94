package control

import (
	"fmt"
	"net/netip"
	"testing"

	"vpnd/acl/language"
	"vpnd/acl/rules"
	"vpnd/internal/control/controltest"
)

// enforce gives the gateway the policy in force for the devices there are.
func (w *world) enforce() {
	w.t.Helper()
	v := w.View()
	policy, err := language.Parse([]byte(v.Policy().Text))
	if err != nil {
		w.t.Fatal(err)
	}
	ruleset, err := rules.Compile(policy, v.PolicyOptions(), subjects(v))
	if err != nil {
		w.t.Fatal(err)
	}
	w.gateway.Set(func(g *controltest.Gateway) { g.RuleSet = ruleset })
}

func TestTagsAndSelf(t *testing.T) {
	ctx := t.Context()
	w := newWorld(t)
	alice, bob := w.enrolled("alice"), w.enrolled("bob")
	add := func(user, name string, tags ...string) netip.Addr {
		t.Helper()
		d, err := w.AddDevice(ctx, user, name, publicKey(t), tags)
		if err != nil {
			t.Fatal(err)
		}
		return d.Device.Addrs[0]
	}
	laptop, server := add("alice", "laptop"), add("alice", "server", "tag:server")
	_, problems, _, err := w.ApplyPolicy(ctx, `{
"tagOwners": {"tag:server": ["alice"]},
"grants": [
	{"src": ["tag:server"], "dst": ["198.51.100.5"], "ip": ["tcp:443"], "mfa": "off"},
	{"src": ["autogroup:member"], "dst": ["autogroup:self"], "ip": ["tcp:22"]},
	{"src": ["autogroup:member"], "dst": ["tag:server"], "ip": ["tcp:80"]},
	{"src": ["alice"], "dst": ["198.51.100.6"], "ip": ["tcp:443"]},
]}`, 1, "", 0)
	if err != nil || problems.Fatal() {
		t.Fatal(problems, err)
	}
	w.enforce()
	for _, from := range []struct {
		addr   netip.Addr
		secret string
	}{{alice.addr, alice.secret}, {laptop, alice.secret}, {server, alice.secret}, {bob.addr, bob.secret}} {
		w.nextPeriod()
		if _, err := w.SignIn(ctx, from.addr, w.codeNow(from.secret)); err != nil {
			t.Fatal(from.addr, err)
		}
	}
	for _, c := range []struct{ from, to, want string }{
		{"alice/phone", "alice/laptop:22", "allowed"}, {"alice/laptop", "alice/phone:22", "allowed"},
		{"alice/phone", "bob/phone:22", "no_grant"}, {"bob/phone", "alice/phone:22", "no_grant"},
		{"alice/phone", "alice/server:22", "no_grant"}, {"alice/server", "alice/phone:22", "no_grant"},
		{"alice/phone", "alice/server:80", "allowed"}, {"bob/phone", "alice/server:80", "allowed"},
		{"alice/server", "198.51.100.5:443", "allowed"}, {"alice/phone", "198.51.100.5:443", "no_grant"},
		{"alice/phone", "198.51.100.6:443", "allowed"}, {"alice/server", "198.51.100.6:443", "no_grant"},
		{"bob/phone", "198.51.100.6:443", "no_grant"},
	} {
		answers, _, err := w.ExplainPolicy(ctx, c.from, c.to, "")
		if err != nil || answers[0].Word != c.want {
			t.Errorf("%s to %s: %+v, %v; want %s", c.from, c.to, answers, err, c.want)
		}
	}
	if who, err := w.WhoIs(ctx, server); err != nil || fmt.Sprint(who.Tags) != "[tag:server]" || who.User != "alice" || who.Device != "server" {
		t.Errorf("WhoIs of the tagged device: %+v, %v", who, err)
	}
	// Without its session the tagged device keeps what needs none.
	if _, _, err := w.EndSessions(ctx, "alice/server", ""); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ from, to, want string }{
		{"alice/server", "198.51.100.5:443", "allowed"}, {"alice/phone", "alice/laptop:22", "allowed"},
	} {
		answers, _, err := w.ExplainPolicy(ctx, c.from, c.to, "")
		if err != nil || answers[0].Word != c.want {
			t.Errorf("%s to %s, the server signed out: %+v, %v; want %s", c.from, c.to, answers, err, c.want)
		}
	}
	// The page says the same as explain.
	st, err := w.Session(ctx, server)
	if err != nil || st.Active {
		t.Fatalf("%+v, %v", st, err)
	}
	open := ""
	for _, r := range st.Reaches {
		if r.Allow {
			open += fmt.Sprint(r.Name, " ", r.Prefix, " ", r.First, ";")
		}
	}
	if want := "198.51.100.5 198.51.100.5/32 443;"; open != want {
		t.Errorf("open to the tagged device: %q, want %q", open, want)
	}
}
