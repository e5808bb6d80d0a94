package netstack

import (
	"errors"
	"net/netip"
	"testing"
	"time"

	"vpnd/internal/dataplane"
)

// Permits says what begin would say, and leaves nothing behind.
func TestPermits(t *testing.T) {
	alice, bob := testDevice(2, "alice/laptop"), testDevice(3, "bob/desk")
	p := offline(t, grants("alice -> 192.0.2.0/24 tcp:443", "alice -> 192.0.2.0/24 tcp:80", "alice -> 192.0.2.0/24 tcp:25 off",
		"alice -> bob tcp:22", "alice -> 10.77.0.1 tcp:8080", "alice -> 10.77.0.1 icmp", "alice -> 240.0.0.1 tcp:443"), alice, bob)
	p.cfg.Own = []netip.AddrPort{netip.MustParseAddrPort("192.0.2.7:443")}
	flow := func(src, dst string, proto uint8, port uint16) dataplane.Flow {
		return dataplane.Flow{Src: netip.MustParseAddr(src), Dst: netip.MustParseAddr(dst), Proto: proto, DstPort: port}
	}
	check := func(signedIn bool) {
		t.Helper()
		for _, test := range []struct {
			what          string
			f             dataplane.Flow
			before, after bool // Alice's sign-in
		}{
			{"granted", flow("10.77.0.2", "192.0.2.1", 6, 443), false, true},
			{"another port", flow("10.77.0.2", "192.0.2.1", 6, 444), false, false},
			{"caught by the portal", flow("10.77.0.2", "192.0.2.1", 6, 80), false, true},
			{"without a code", flow("10.77.0.2", "192.0.2.1", 6, 25), true, true},
			{"portal", flow("10.77.0.2", "10.77.0.1", 6, 80), true, true},
			{"app", flow("10.77.0.2", "10.77.0.1", 6, 8080), false, true},
			{"ping the gateway", flow("10.77.0.2", "10.77.0.1", 1, 0), false, true},
			{"to a device without a session", flow("10.77.0.2", "10.77.0.3", 6, 22), false, false},
			{"to no device", flow("10.77.0.2", "10.77.0.9", 6, 22), false, false},
			{"from no device", flow("10.77.0.9", "192.0.2.1", 6, 443), false, false},
			{"from a resource", flow("192.0.2.1", "10.77.0.2", 6, 443), false, false},
			{"what no host dials", flow("10.77.0.2", "240.0.0.1", 6, 443), false, false},
			{"a listener of the daemon's own", flow("10.77.0.2", "192.0.2.7", 6, 443), false, false},
			{"ICMP of the other family", flow("10.77.0.2", "10.77.0.1", 58, 0), false, false},
			{"two families", flow("10.77.0.2", "2001:db8::1", 6, 443), false, false},
		} {
			want := test.before
			if signedIn {
				want = test.after
			}
			if got, err := p.Permits(t.Context(), test.f); err != nil || got != want {
				t.Errorf("signed in %v: %s: %v, %v, want %v", signedIn, test.what, got, err, want)
			}
		}
	}
	check(false)
	if err := p.putSession(signIn(alice, 1, time.Hour)); err != nil {
		t.Fatal(err)
	}
	check(true)
	if n := len(p.flows.all()); n != 0 {
		t.Errorf("%d flows were begun", n)
	}
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := p.Permits(t.Context(), flow("10.77.0.2", "192.0.2.1", 6, 443)); !errors.Is(err, ErrClosed) {
		t.Errorf("after Close: %v, want ErrClosed", err)
	}
}
