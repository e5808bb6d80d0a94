package netstack

import (
	"fmt"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"vpnd/acl/rules"
	"vpnd/internal/dataplane"
)

// ends are the two ends of a flow whose packets a test makes up.
type ends struct {
	what     string
	proto    uint8
	src, dst netip.AddrPort
}

func (e ends) first() []byte {
	if e.proto == protoUDP {
		return udpPacket(e.src.String(), e.dst.String(), "x")
	}
	return tcpPacket(e.src.String(), e.dst.String(), flagSYN, "")
}

func (e ends) later(forth bool) []byte {
	src, dst := e.src.String(), e.dst.String()
	if !forth {
		src, dst = dst, src
	}
	if e.proto == protoUDP {
		return udpPacket(src, dst, "x")
	}
	return tcpPacket(src, dst, flagACK, "x")
}

// judge is what the plane does with a packet from a device.
func (p *Plane) judgeBytes(b []byte) (action, *flow) {
	pk, ok := parse(b)
	if !ok {
		return drop, nil
	}
	return p.inbound(&pk, time.Now())
}

// answers says whether the other end's packets come through.
func (p *Plane) answers(e ends) bool {
	pk, ok := parse(e.later(false))
	if !ok {
		return false
	}
	if p.devices.get(e.dst.Addr()) != nil {
		a, _ := p.inbound(&pk, time.Now())
		return a == forward
	}
	return p.outbound(&pk, time.Now())
}

func passes(a action) bool { return a == deliver || a == forward }

// While policies alternate a hundred times, no packet of a flow that both allow is lost,
// none that neither allows passes, and a flow that one takes away is dead when Update
// returns and stays dead.
func TestSwap(t *testing.T) {
	needResource(t)
	alice, bob := testDevice(2, "alice/laptop"), testDevice(3, "bob/desk")
	ruleset := []*rules.Ruleset{
		compile(t, grants("alice -> 198.51.100.2 tcp:443", "alice -> 198.51.100.2 udp:53", "alice -> 2001:db8:51::2 *", "alice -> bob tcp:22",
			"alice -> 198.51.100.2 25", "alice -> 198.51.100.2 tcp:1401"), alice, bob),
		compile(t, grants("bob -> 198.51.100.0/25 tcp:1-999 5m", "alice -> 198.51.100.0/24 tcp:400-2000", "alice -> 198.51.100.0/24 udp:50-60 off",
			"alice -> 2001:db8::/32 tcp:443 15m", "alice -> 2001:db8::/32 udp:53", "* -> bob 22"), alice, bob),
	}
	finished := make(chan error, 8)
	listenTCP(t, "res", at(res4, 1401), pour(finished))
	g := testGateway(t)
	p := newPlane(t, dataplane.Config{}, dataplane.State{Gateway: g, Devices: []dataplane.Device{alice, bob}, Rules: ruleset[0],
		Sessions: []dataplane.Session{signIn(alice, 1, time.Hour), signIn(bob, 2, time.Hour)}})
	real := stream(t, newClient(t, 2, g), at(res4, 1401))

	both := []ends{
		{"tcp", protoTCP, ap("10.77.0.2:5000"), ap("198.51.100.2:443")},
		{"udp", protoUDP, ap("10.77.0.2:5000"), ap("198.51.100.2:53")},
		{"tcp over IPv6", protoTCP, ap("[fd77::2]:5000"), ap("[2001:db8:51::2]:443")},
		{"udp over IPv6", protoUDP, ap("[fd77::2]:5000"), ap("[2001:db8:51::2]:53")},
		{"to a device", protoTCP, ap("10.77.0.2:5000"), ap("10.77.0.3:22")},
	}
	neither := []ends{
		{"another port", protoTCP, ap("10.77.0.2:5001"), ap("198.51.100.2:80")},
		{"bob's", protoUDP, ap("10.77.0.3:5001"), ap("198.51.100.2:53")},
		{"backwards", protoTCP, ap("10.77.0.3:5001"), ap("10.77.0.2:22")},
		{"bob's over IPv6", protoTCP, ap("[fd77::3]:5001"), ap("[2001:db8:51::2]:443")},
	}
	var packets atomic.Int64
	stop := make(chan struct{})
	var wg sync.WaitGroup
	end := sync.OnceFunc(func() { close(stop); wg.Wait() })
	defer end()
	until := func(fn func() error) {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				if err := fn(); err != nil {
					t.Error(err)
					return
				}
				packets.Add(1)
			}
		})
	}
	for _, e := range both {
		if a, _ := p.judgeBytes(e.first()); !passes(a) {
			t.Fatalf("%s is refused", e.what)
		}
	}
	until(func() error {
		for _, e := range both {
			if a, _ := p.judgeBytes(e.later(true)); !passes(a) {
				return fmt.Errorf("%s, which both allow, is interrupted", e.what)
			}
			if !p.answers(e) {
				return fmt.Errorf("%s, which both allow, is interrupted on its way back", e.what)
			}
		}
		return nil
	})
	port := uint16(6000)
	until(func() error {
		port = max(port+1, 6000)
		for _, e := range both {
			e.src = netip.AddrPortFrom(e.src.Addr(), port)
			a, f := p.judgeBytes(e.first())
			if !passes(a) {
				return fmt.Errorf("%s, a new flow that both allow, is refused", e.what)
			}
			p.cut(f)
		}
		return nil
	})
	until(func() error {
		for _, e := range neither {
			if a, _ := p.judgeBytes(e.first()); passes(a) {
				return fmt.Errorf("%s, which neither allows, passes", e.what)
			}
		}
		return nil
	})
	lost := []ends{
		{"tcp", protoTCP, ap("10.77.0.2:7000"), ap("198.51.100.2:25")},
		{"udp", protoUDP, ap("10.77.0.2:7000"), ap("198.51.100.2:25")},
		{"over IPv6", protoTCP, ap("[fd77::2]:7000"), ap("[2001:db8:51::2]:25")},
	}
	for i := range 100 {
		for n := packets.Load(); packets.Load() < n+12 && !t.Failed(); {
			time.Sleep(50 * time.Microsecond)
		}
		next := ruleset[(i+1)%2]
		if next == ruleset[0] {
			update(t, p, dataplane.Change{Rules: next})
			for _, e := range lost {
				if a, _ := p.judgeBytes(e.later(true)); e.proto == protoTCP && passes(a) || p.answers(e) && e.proto == protoTCP {
					t.Errorf("%s, which was cut, goes on when it is allowed again", e.what)
				}
			}
			continue
		}
		var cut []*flow
		for _, e := range lost {
			a, f := p.judgeBytes(e.first())
			if !passes(a) || !p.answers(e) {
				t.Fatalf("%s is refused", e.what)
			}
			cut = append(cut, f)
		}
		update(t, p, dataplane.Change{Rules: next})
		for k, e := range lost {
			a, _ := p.judgeBytes(e.later(true))
			if passes(a) || p.answers(e) || !cut[k].dead.Load() {
				t.Errorf("%s, which was taken away, goes on", e.what)
			}
		}
	}
	end()
	select {
	case err := <-finished:
		t.Errorf("a real connection that both allow was cut: %v", err)
	default:
	}
	t.Logf("%d rounds of packets", packets.Load())
	update(t, p, dataplane.Change{EndSessions: []dataplane.Session{{Addrs: alice.Addrs}}})
	if real() == nil {
		t.Error("the real connection outlives its session")
	}
}
