package rules_test

import (
	"net/netip"
	"testing"
	"time"

	"vpnd/acl/acltest"
	"vpnd/acl/language"
	"vpnd/acl/rules"
)

// What another control server got wrong (Headscale): sections left out allowed all.

func TestOmittedSectionsDeny(t *testing.T) {
	subjects := []rules.Subject{acltest.Device("alice/laptop", "alice", nil, "10.77.0.2"), acltest.Device("bob/phone", "bob", []string{"tag:web"}, "10.77.0.3")}
	live := rules.Session{Until: acltest.Now.Add(time.Hour), Code: acltest.Now}
	for _, text := range []string{
		`{}`, `{"grants": []}`, `{"acls": []}`, `{"groups": {"group:a": ["alice"]}}`, `{"hosts": {"db": "10.1.2.3"}}`,
		`{"tagOwners": {"tag:web": ["alice"]}}`, `{"groups": {}, "hosts": {}, "grants": [], "acls": [], "tests": []}`,
	} {
		p, err := language.Parse([]byte(text))
		if err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		r, err := rules.Compile(p, acltest.Small, subjects)
		if err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		for _, dst := range []string{"10.77.0.1", "10.77.0.3", "10.1.2.3", "192.0.2.1"} {
			for _, proto := range []uint8{1, language.ProtoTCP, language.ProtoUDP} {
				if v := r.Verdict(rules.Packet{Src: netip.MustParseAddr("10.77.0.2"), Dst: netip.MustParseAddr(dst), Proto: proto, DstPort: 443,
					SrcSession: live, DstSession: live}, acltest.Now); v.Allow {
					t.Errorf("%s allows protocol %d to %s", text, proto, dst)
				}
			}
		}
	}
}
