package acl

import (
	"net/netip"
	"strings"
	"testing"
	"time"
)

// What another control server got wrong (Headscale): sections left out allowed all, and a
// test passed if any one host of a tag was reachable.

func TestOmittedSectionsDeny(t *testing.T) {
	subjects := []Subject{subject("alice/laptop", "alice", nil, "10.77.0.2"), subject("bob/phone", "bob", []string{"tag:web"}, "10.77.0.3")}
	live := Session{Until: testNow.Add(time.Hour), Code: testNow}
	for _, text := range []string{
		`{}`, `{"grants": []}`, `{"acls": []}`, `{"groups": {"group:a": ["alice"]}}`, `{"hosts": {"db": "10.1.2.3"}}`,
		`{"tagOwners": {"tag:web": ["alice"]}}`, `{"groups": {}, "hosts": {}, "grants": [], "acls": [], "tests": []}`,
	} {
		p, err := Parse([]byte(text))
		if err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		r, err := Compile(p, testOptions, subjects)
		if err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		for _, dst := range []string{"10.77.0.1", "10.77.0.3", "10.1.2.3", "192.0.2.1"} {
			for _, proto := range []uint8{1, protoTCP, protoUDP} {
				if v := r.Verdict(Packet{Src: netip.MustParseAddr("10.77.0.2"), Dst: netip.MustParseAddr(dst), Proto: proto, DstPort: 443,
					SrcSession: live, DstSession: live}, testNow); v.Allow {
					t.Errorf("%s allows protocol %d to %s", text, proto, dst)
				}
			}
		}
	}
}

func TestTestsLookAtEveryHostOfATag(t *testing.T) {
	subjects := []Subject{
		subject("alice/laptop", "alice", nil, "10.77.0.2"),
		subject("ops/web1", "ops", []string{"tag:web"}, "10.77.0.4"),
		subject("ops/web2", "ops", []string{"tag:web", "tag:new"}, "10.77.0.5"),
	}
	compile := func(text string) error {
		p, err := Parse([]byte(text))
		if err == nil {
			_, err = Compile(p, testOptions, subjects)
		}
		return err
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
