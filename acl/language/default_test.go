package language_test

import (
	"net/netip"
	"testing"
	"time"

	"vpnd/acl/acltest"
	"vpnd/acl/language"
	"vpnd/acl/rules"
)

func TestDefaultPolicy(t *testing.T) {
	p, err := language.Parse([]byte(language.DefaultPolicy()))
	if err != nil {
		t.Fatal(err)
	}
	r, err := rules.Compile(p, acltest.Small, []rules.Subject{acltest.Device("alice/phone", "Alice", nil, "10.77.0.2", "fd77::2")})
	if err != nil {
		t.Fatal(err)
	}
	live := rules.Session{Until: acltest.Now.Add(time.Hour), Code: acltest.Now.Add(-11 * time.Hour)}
	for _, test := range []struct {
		src, dst string
		proto    uint8
		port     uint16
		session  rules.Session
		want     rules.Reason
	}{
		{"10.77.0.2", "10.77.0.1", language.ProtoTCP, 8080, live, rules.Allowed},
		{"fd77::2", "fd77::1", language.ProtoTCP, 8080, live, rules.Allowed},
		{"10.77.0.2", "10.77.0.1", language.ProtoTCP, 8080, rules.Session{}, rules.NoSession},
		{"10.77.0.2", "10.77.0.1", language.ProtoTCP, 8081, live, rules.NoGrant},
		{"10.77.0.2", "10.77.0.1", language.ProtoUDP, 8080, live, rules.NoGrant},
		{"10.77.0.3", "10.77.0.1", language.ProtoTCP, 8080, live, rules.NoGrant},
		{"10.77.0.2", "10.77.0.2", language.ProtoTCP, 8080, live, rules.NoGrant},
	} {
		v := r.Verdict(rules.Packet{Src: netip.MustParseAddr(test.src), Dst: netip.MustParseAddr(test.dst), Proto: test.proto, DstPort: test.port, SrcSession: test.session}, acltest.Now)
		if v.Reason != test.want || v.Allow != (test.want == rules.Allowed) {
			t.Errorf("%+v: %+v", test, v)
		}
	}
	if got := r.Reaches(netip.MustParseAddr("10.77.0.2"), live, acltest.Now); len(got) != 2 {
		t.Error(got)
	}
}
