package acl

import (
	"net/netip"
	"testing"
	"time"
)

// What another control server got wrong (Headscale): sections left out allowed all.

func TestOmittedSectionsDeny(t *testing.T) {
	subjects := []Subject{Device("alice/laptop", "alice", nil, "10.77.0.2"), Device("bob/phone", "bob", []string{"tag:web"}, "10.77.0.3")}
	live := Session{Until: Now.Add(time.Hour), Code: Now}
	for _, text := range []string{
		`{}`, `{"grants": []}`, `{"acls": []}`, `{"groups": {"group:a": ["alice"]}}`, `{"hosts": {"db": "10.1.2.3"}}`,
		`{"tagOwners": {"tag:web": ["alice"]}}`, `{"groups": {}, "hosts": {}, "grants": [], "acls": [], "tests": []}`,
	} {
		p, err := Parse([]byte(text))
		if err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		r, err := Compile(p, Small, subjects)
		if err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		for _, dst := range []string{"10.77.0.1", "10.77.0.3", "10.1.2.3", "192.0.2.1"} {
			for _, proto := range []uint8{1, protoTCP, protoUDP} {
				if v := r.Verdict(Packet{Src: netip.MustParseAddr("10.77.0.2"), Dst: netip.MustParseAddr(dst), Proto: proto, DstPort: 443,
					SrcSession: live, DstSession: live}, Now); v.Allow {
					t.Errorf("%s allows protocol %d to %s", text, proto, dst)
				}
			}
		}
	}
}
