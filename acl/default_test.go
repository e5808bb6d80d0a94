package acl

import (
	"net/netip"
	"testing"
	"time"
)

func TestDefaultPolicy(t *testing.T) {
	p, err := Parse([]byte(DefaultPolicy()))
	if err != nil {
		t.Fatal(err)
	}
	r, err := Compile(p, Small, []Subject{Device("alice/phone", "Alice", nil, "10.77.0.2", "fd77::2")})
	if err != nil {
		t.Fatal(err)
	}
	live := Session{Until: Now.Add(time.Hour), Code: Now.Add(-11 * time.Hour)}
	for _, test := range []struct {
		src, dst string
		proto    uint8
		port     uint16
		session  Session
		want     Reason
	}{
		{"10.77.0.2", "10.77.0.1", protoTCP, 8080, live, Allowed},
		{"fd77::2", "fd77::1", protoTCP, 8080, live, Allowed},
		{"10.77.0.2", "10.77.0.1", protoTCP, 8080, Session{}, NoSession},
		{"10.77.0.2", "10.77.0.1", protoTCP, 8081, live, NoGrant},
		{"10.77.0.2", "10.77.0.1", protoUDP, 8080, live, NoGrant},
		{"10.77.0.3", "10.77.0.1", protoTCP, 8080, live, NoGrant},
		{"10.77.0.2", "10.77.0.2", protoTCP, 8080, live, NoGrant},
	} {
		v := r.Verdict(Packet{Src: netip.MustParseAddr(test.src), Dst: netip.MustParseAddr(test.dst), Proto: test.proto, DstPort: test.port, SrcSession: test.session}, Now)
		if v.Reason != test.want || v.Allow != (test.want == Allowed) {
			t.Errorf("%+v: %+v", test, v)
		}
	}
	if got := r.Reaches(netip.MustParseAddr("10.77.0.2"), live, Now); len(got) != 2 {
		t.Error(got)
	}
}
