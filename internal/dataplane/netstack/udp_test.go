package netstack

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"vpnd/internal/dataplane"
)

// TestUDPIdle: a question that is asked once, with its answer, is forgotten after 30 s, a
// stream after 120 s without a packet, as in the linux plane's conntrack.
func TestUDPIdle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		alice, bob := testDevice(2, "alice/laptop"), testDevice(3, "bob/desk")
		p := offlineClock(t, grants("alice -> 192.0.2.0/24 udp:53", "alice -> bob udp:53"), alice, bob)
		p.putSession(signIn(alice, 1, time.Hour))
		p.putSession(signIn(bob, 2, time.Hour))
		for _, to := range []string{"192.0.2.1:53", "10.77.0.3:53"} {
			ask := func() *flow {
				t.Helper()
				pk, _ := parse(udpPacket("10.77.0.2:1", to, "?"))
				a, f := p.inbound(&pk, time.Now())
				if f == nil {
					t.Fatalf("%s: action %v", to, a)
				}
				return f
			}
			answer := func() {
				t.Helper()
				pk, _ := parse(udpPacket(to, "10.77.0.2:1", "!"))
				if strings.HasPrefix(to, "10.77.") {
					p.inbound(&pk, time.Now())
				} else if !p.outbound(&pk, time.Now()) {
					t.Fatalf("the answer of %s does not pass", to)
				}
			}
			lives := func(what string, f *flow, d time.Duration) {
				t.Helper()
				if f.stale(time.Now().Add(d-time.Second)) || !f.stale(time.Now().Add(d+time.Second)) {
					t.Errorf("%s, %s: it lives for %v, want %v", to, what, f.idle(), d)
				}
			}
			f := ask()
			lives("one packet", f, 30*time.Second)
			time.Sleep(3 * time.Second)
			ask()
			lives("two packets and no answer", f, 30*time.Second)
			p.cut(f)
			f = ask()
			answer()
			lives("question and answer", f, 30*time.Second)
			time.Sleep(3 * time.Second)
			ask()
			lives("a stream", f, 2*time.Minute)
			p.cut(f)
		}
	})
}

// TestNoMasqueradingIsSaid: what cannot be switched off here is said.
func TestNoMasqueradingIsSaid(t *testing.T) {
	p := offline(t, grants())
	said := func() bool {
		s, err := p.Stats(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return strings.Contains(strings.Join(s.Filters, " "), "masquerading is off")
	}
	if !said() {
		t.Error("that masquerading cannot be switched off is not said")
	}
	p.near.Store(&dataplane.Gateway{Masquerade: true})
	if said() {
		t.Error("masquerading is on and said to be off")
	}
}
