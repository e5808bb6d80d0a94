package netstack

import (
	"fmt"
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

// TestCutUDPIsTold: a device that only waits for datagrams learns of a cut by ICMP
// "prohibited", once and in each family, at both ends of a flow between devices, however many
// flows there are; an end that came by itself is not told.
func TestCutUDPIsTold(t *testing.T) {
	alice, bob := testDevice(2, "alice/laptop"), testDevice(3, "bob/desk")
	open := func(t *testing.T, flows ...[2]string) *Plane {
		p := offline(t, grants("alice -> 192.0.2.0/24 udp:53", "alice -> 2001:db8::/32 udp:53", "alice -> bob udp:53"), alice, bob)
		p.putSession(signIn(alice, 1, time.Hour))
		p.putSession(signIn(bob, 2, time.Hour))
		for _, f := range flows {
			if a := p.judgePacket(t, udpPacket(f[0], f[1], "?")); a != deliver && a != forward {
				t.Fatalf("%v: action %v", f, a)
			}
		}
		return p
	}
	told := func(p *Plane) map[flowKey]int {
		out := map[flowKey]int{}
		for {
			var raw []byte
			select {
			case o := <-p.link.out:
				raw = o.raw
			default:
				list := p.link.resets.take(1)
				if len(list) == 0 {
					return out
				}
				raw = list[0].raw
			}
			pk, ok := parse(raw)
			q, isQuote := pk.quoted()
			m := pk.b[pk.l4:]
			if code := [2]byte{m[0], m[1]}; !ok || !isQuote || q.src != pk.dst || code != [2]byte{3, prohibited4} && code != [2]byte{1, prohibited6} {
				t.Fatalf("%x does not tell of anything", raw)
			}
			out[q.key()]++
		}
	}
	key := func(src, dst string) flowKey { return flowKey{proto: protoUDP, src: ap(src), dst: ap(dst)} }
	end := dataplane.Change{EndSessions: []dataplane.Session{{Device: alice.ID, Addrs: alice.Addrs}}}

	flows := [][2]string{{"10.77.0.2:7", "192.0.2.1:53"}, {"[fd77::2]:7", "[2001:db8::1]:53"}, {"10.77.0.2:7", "10.77.0.3:53"}}
	for what, cut := range map[string]func(*Plane){
		"a revocation":   func(p *Plane) { p.applyLocked(end) },
		"another policy": func(p *Plane) { p.applyLocked(dataplane.Change{Rules: compile(t, grants(), alice, bob)}) },
		"a device that goes": func(p *Plane) {
			p.forgetLocked(p.devices.get(alice.Addrs[0]))
			p.settle(alice.Addrs, false)
		},
	} {
		p := open(t, flows...)
		cut(p)
		p.settle(alice.Addrs, true)
		got := told(p)
		for _, k := range []flowKey{key(flows[0][0], flows[0][1]), key(flows[1][0], flows[1][1]), key(flows[2][0], flows[2][1]), key(flows[2][1], flows[2][0])} {
			if got[k] != 1 {
				t.Errorf("%s: %v is told %d times, want 1", what, k, got[k])
			}
			delete(got, k)
		}
		if len(got) > 0 {
			t.Errorf("%s: told of %v, too", what, got)
		}
	}

	p := open(t, flows...)
	for _, f := range p.flows.all() { // as the janitor does
		p.cut(f)
	}
	if got := told(p); len(got) > 0 {
		t.Errorf("idle flows are told of: %v", got)
	}

	var many [][2]string
	for i := range linkQueue + 100 {
		many = append(many, [2]string{fmt.Sprint("10.77.0.2:", 1000+i), "192.0.2.1:53"})
	}
	p = open(t, many...)
	p.applyLocked(end)
	if got := told(p); len(got) != len(many) {
		t.Errorf("of %d flows %d are told", len(many), len(got))
	}
}

// TestNoMasqueradingIsSaid: what cannot be switched off here is said.
func TestNoMasqueradingIsSaid(t *testing.T) {
	p := offline(t, grants())
	said := func() bool {
		s, err := p.Stats(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return strings.Contains(fmt.Sprint(s.Filters), "masquerading is off")
	}
	if !said() {
		t.Error("that masquerading cannot be switched off is not said")
	}
	p.near.Store(&dataplane.Gateway{Masquerade: true})
	if said() {
		t.Error("masquerading is on and said to be off")
	}
}
