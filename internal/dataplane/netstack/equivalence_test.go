package netstack

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"vpnd/acl/acltest"
	"vpnd/acl/rules"
	"vpnd/internal/dataplane"
)

// bench holds the filter against the policy of random worlds.
type bench struct {
	p      *Plane
	oracle func(r *rules.Ruleset, p rules.Packet, now time.Time) bool
	n, yes int
	w      *acltest.World
	// services counts the flows to service addresses that were let in.
	services int
}

func newBench(t *testing.T) *bench {
	t.Helper()
	p := offlineClock(t, grants()) // no janitor, who goes by another clock than the worlds
	p.link = offline(t, grants()).link
	p.cfg.AppPort = 443
	p.canPing = pingSupport{v4: true, v6: true}
	return &bench{p: p, oracle: func(r *rules.Ruleset, p rules.Packet, now time.Time) bool { return r.Verdict(p, now).Allow }}
}

// load makes a world the plane's.
func (b *bench) load(w *acltest.World) error {
	rules, err := w.Compile()
	if err != nil {
		return err
	}
	b.w = w
	b.p.near.Store(&dataplane.Gateway{Addrs: w.Options.Gateway, Network: w.Options.Network})
	b.p.devices.mu.Lock()
	b.p.devices.byAddr = make(map[netip.Addr]*peer)
	b.p.devices.mu.Unlock()
	for _, d := range w.Subjects {
		b.p.devices.put(newPeer(dataplane.Device{ID: d.Device, Name: d.Device, Addrs: d.Addrs}))
	}
	var services []dataplane.Service
	for name, addrs := range w.Options.Services {
		r := rules.Policy().Resource(name)
		s := dataplane.Service{Name: name, Addrs: addrs, Ports: r.Ports, Hosts: []netip.Addr{r.To.Addr}}
		if !r.To.Addr.IsValid() {
			s.Hosts[0] = netip.MustParseAddr("192.0.2.77")
		}
		services = append(services, s)
	}
	found := byAddress(services)
	b.p.services.Store(&found)
	b.p.rules.Store(rules)
	b.p.gen.Add(1)
	return nil
}

// signIn gives the devices at the ends of a packet the sessions that it says they have.
func (b *bench) signIn(x rules.Packet) {
	for i, end := range []struct {
		a netip.Addr
		s rules.Session
	}{{x.Src, x.SrcSession}, {x.Dst, x.DstSession}} {
		d := b.p.devices.get(end.a)
		switch {
		case d == nil:
		case end.s == rules.Session{}:
			d.session.Store(nil)
		default:
			d.session.Store(newSession(dataplane.Session{Until: end.s.Until, Codes: []dataplane.Code{{Serial: uint32(i + 1), At: end.s.Code}}}, nil))
		}
	}
}

// want is what the plane must do: the policy's verdict, but for what no policy decides.
func (b *bench) want(x rules.Packet, now time.Time) bool {
	gw := b.p.near.Load()
	ping := x.Proto == protoICMP || x.Proto == protoICMPv6
	switch {
	case b.p.devices.get(x.Src) == nil, !unicast(x.Dst):
		return false // WireGuard vouches for devices alone
	case ping && (x.Proto == protoICMP) != x.Src.Is4():
		return false // not of the family
	case slices.Contains(gw.Addrs, x.Dst):
		switch {
		case x.Proto == protoTCP && x.DstPort == portalPort:
			return true
		case x.Proto != protoTCP && !ping, x.Proto == protoTCP && x.DstPort != b.p.cfg.AppPort:
			return false // nobody is there
		}
	case !within(gw.Network, x.Dst):
		if x.Proto != protoTCP && x.Proto != protoUDP && !ping || b.p.undialable(x.Dst) != nil {
			return false // it cannot be carried
		}
	}
	return b.oracle(b.p.rules.Load(), x, now)
}

// got is what the plane does with the packet, and what it says it would do.
func (b *bench) got(t *testing.T, x rules.Packet, now time.Time) (does, says bool) {
	t.Helper()
	says = b.p.permits(dataplane.Flow{Src: x.Src, Dst: x.Dst, Proto: x.Proto, DstPort: x.DstPort}, now)
	pk, ok := parse(firstPacket(x))
	if !ok {
		return false, says
	}
	a, f := b.p.inbound(&pk, now)
	if f == nil {
		return a != drop && a != refuse, says
	}
	b.p.cut(f)
	if b.w.IsService(x.Dst) && f.kind != kindPortal {
		b.services++
		if s := b.p.called(f); f.kind != kindService || s == nil || !slices.Contains(b.w.Options.Services[f.service], x.Dst) {
			t.Errorf("a flow to %v is of kind %d, to %q", x.Dst, f.kind, f.service)
		}
	}
	caught := f.kind == kindPortal && !(slices.Contains(b.p.near.Load().Addrs, x.Dst) && x.DstPort == portalPort)
	return !caught, says
}

func (b *bench) wrong(t *testing.T, x rules.Packet, now time.Time) (want, does, says, bad bool) {
	t.Helper()
	b.signIn(x)
	want = b.want(x, now)
	does, says = b.got(t, x, now)
	b.n += 2
	if does {
		b.yes += 2
	}
	return want, does, says, does != want || says != want
}

// judge judges packets at the world's moments, each with other sessions.
func (b *bench) judge(t *testing.T, w *acltest.World, seed uint64, rng *rand.Rand, packets int) (report string) {
	t.Helper()
	if err := b.load(w); err != nil {
		t.Fatal(err)
	}
	addrs, times := w.Addrs(), w.Times(rng)
	for range packets {
		// Most are a device's and such that some grant covers them, else nearly all would
		// be refused.
		x := w.Packet(rng, addrs, acltest.Now)
		for try := 0; try < 12 && (b.p.devices.get(x.Src) == nil || rng.IntN(3) > 0 && !w.Granted(x)); try++ {
			x = w.Packet(rng, addrs, acltest.Now)
		}
		for range 8 {
			now := times[rng.IntN(len(times))]
			x.SrcSession, x.DstSession = randomSession(rng, now), randomSession(rng, now)
			if x.Src == x.Dst {
				x.DstSession = x.SrcSession
			}
			if want, does, says, bad := b.wrong(t, x, now); bad {
				return fmt.Sprintf("the policy says %v, the plane does %v and says %v: %s", want, does, says,
					acltest.Report(w, seed, x, now, func(w *acltest.World) bool {
						if err := b.load(w); err != nil {
							return false
						}
						_, _, _, bad := b.wrong(t, x, now)
						return bad
					}))
			}
		}
	}
	return ""
}

// randomSession is one around the boundaries of freshness, or none.
func randomSession(rng *rand.Rand, now time.Time) rules.Session {
	if rng.IntN(8) == 0 {
		return rules.Session{}
	}
	ages := []time.Duration{0, time.Second - 1, time.Second, 15*time.Minute - 1, 15 * time.Minute, time.Hour - 1, time.Hour, 11 * time.Hour}
	lasts := []time.Duration{-time.Hour, 0, 1, time.Minute, time.Hour, time.Hour, 6 * time.Hour, 12 * time.Hour}
	return rules.Session{Until: now.Add(lasts[rng.IntN(len(lasts))]), Code: now.Add(-ages[rng.IntN(len(ages))])}
}

// firstPacket is a SYN, an echo request, or a header with ports, as a device sends it.
func firstPacket(x rules.Packet) []byte {
	src, dst := netip.AddrPortFrom(x.Src, 40000).String(), netip.AddrPortFrom(x.Dst, x.DstPort).String()
	switch x.Proto {
	case protoTCP:
		return tcpPacket(src, dst, flagSYN, "")
	case protoUDP:
		return udpPacket(src, dst, "")
	case protoICMP, protoICMPv6:
		if (x.Proto == protoICMP) == x.Src.Is4() {
			return echoPacket(src, x.Dst.String())
		}
	}
	l4 := make([]byte, 16)
	binary.BigEndian.PutUint16(l4[2:], x.DstPort)
	return ipPacket(x.Src, x.Dst, x.Proto, l4)
}

// The filter allows exactly what the policy does: random policies, sessions and packets,
// at each moment at which something may change and just before.
func TestEquivalence(t *testing.T) {
	b := newBench(t)
	begin := time.Now()
	for seed := range uint64(150) {
		rng := rand.New(rand.NewPCG(seed, 30))
		if report := b.judge(t, acltest.Random(rng, 1+rng.IntN(12)), seed, rng, 120); report != "" {
			t.Fatal(report)
		}
	}
	t.Logf("%d verdicts in %v, %d of them allow, %d at service addresses", b.n, time.Since(begin).Round(time.Millisecond), b.yes, b.services)
	if b.n < 100_000 || b.yes < b.n/30 || b.services < 500 {
		t.Errorf("%d verdicts, %d of them allow: too few to show anything", b.n, b.yes)
	}
}

// A policy that the filter does not follow is found out, and what is reported is one
// grant that shows it.
func TestEquivalenceFails(t *testing.T) {
	for name, oracle := range map[string]func(r *rules.Ruleset, p rules.Packet, now time.Time) bool{
		"ports are off by one": func(r *rules.Ruleset, p rules.Packet, now time.Time) bool {
			p.DstPort++
			return r.Verdict(p, now).Allow
		},
		"the other end's session is not asked": func(r *rules.Ruleset, p rules.Packet, now time.Time) bool {
			p.DstSession.Until = now.Add(time.Hour)
			return r.Verdict(p, now).Allow
		},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			b.oracle = oracle
			for seed := range uint64(40) {
				rng := rand.New(rand.NewPCG(seed, 31))
				if report := b.judge(t, acltest.Random(rng, 8), seed, rng, 50); report != "" {
					if strings.Count(report, `"src"`) != 1 {
						t.Errorf("more than one grant is left:\n%s", report)
					}
					return
				}
			}
			t.Error("the fault is not found")
		})
	}
}
