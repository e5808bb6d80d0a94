package filter

import (
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ti-mo/conntrack"

	"vpnd/acl/acltest"
	"vpnd/acl/rules"
	"vpnd/internal/dataplane"
)

// routable says whether a host sends packets with these ends from one side to the other,
// whatever a filter says.
func (w way) routable(p rules.Packet) bool {
	for _, a := range []netip.Addr{p.Src, p.Dst} {
		if !a.IsGlobalUnicast() || a.Is4() && (a.As4()[0] == 0 || a.As4()[0] >= 240) {
			return false
		}
	}
	// A network's first IPv6 address is that of all its routers (RFC 4291, 2.6.1): our own.
	for _, n := range w.gateway.Network {
		if w.own(p.Src) && p.Dst == n.Addr() {
			return false
		}
	}
	return p.Proto != 1 && p.Proto != 58 || (p.Proto == 1) == p.Src.Is4() // each family has its own ICMP
}

// real holds a gateway's treatment of real packets against the policy.
type real struct {
	f      *Filter
	wire   *wire
	oracle func(s *scene, p rules.Packet, at time.Time) (allow, ours bool)
	wait   time.Duration // for what must come through; the kernel takes none to speak of
	n, yes int
	asked  int // of yes, those to service addresses
	// refused are the packets of all rounds that must never come through.
	refused map[uint32]rules.Packet
}

func newReal(t *testing.T) *real {
	t.Helper()
	w := acltest.Random(rand.New(rand.NewPCG(0, 0)), 0)
	gateway := dataplane.Gateway{Addrs: w.Options.Gateway, Network: w.Options.Network}
	return &real{wire: newWire(t, way{gateway: gateway}), f: openFilter(t), oracle: (*scene).oracle, wait: 5 * time.Second, refused: make(map[uint32]rules.Packet)}
}

// wrong puts a scene in force and sends packets. It returns one that came through or did
// not come through against the policy.
func (r *real) wrong(t *testing.T, s *scene, packets []rules.Packet) (judged, bool) {
	t.Helper()
	for range 20 {
		begin := time.Now()
		r.flush(t)
		if err := s.set(t.Context(), r.f); err != nil {
			t.Fatal(err)
		}
		x, bad, n, yes := r.round(t, s, packets)
		if time.Since(begin) < coarse/4 { // else something may have ended meanwhile
			r.n, r.yes = r.n+n, r.yes+yes
			return x, bad
		}
	}
	t.Fatalf("this machine takes more than %v to judge %d packets", coarse/4, len(packets))
	return judged{}, false
}

func (r *real) round(t *testing.T, s *scene, packets []rules.Packet) (x judged, bad bool, n, yes int) {
	t.Helper()
	var in, out []uint32 // ids of those that must come through, and of all
	sent := make(map[uint32]rules.Packet)
	flows := make(map[dataplane.Flow]bool)
	for _, p := range packets {
		p = s.signed(p)
		want, ours := r.oracle(s, p, s.now)
		// Of what has no ports, a second packet would be of the same flow.
		if !ours || !s.way().routable(p) || !hasPorts(p.Proto) && flows[flowOf(p)] {
			continue
		}
		flows[flowOf(p)] = true
		id := r.wire.put(s.way(), p)
		sent[id], out = p, append(out, id)
		if want {
			in = append(in, id)
			if s.world.IsService(p.Dst) {
				r.asked++
			}
		} else {
			r.refused[id] = p
		}
	}
	lost := func(id uint32) bool { return !r.wire.arrived[id] }
	r.wire.look(r.wait, func() bool { return !slices.ContainsFunc(in, lost) })
	for _, id := range out {
		if _, refused := r.refused[id]; r.wire.arrived[id] == refused {
			return judged{sent[id], s.now}, true, len(out), len(in)
		}
	}
	return judged{}, false, len(out), len(in)
}

// flush forgets all flows of the namespace.
func (r *real) flush(t *testing.T) {
	t.Helper()
	c, err := conntrack.Dial(nil)
	if err == nil {
		err = c.Flush()
		_ = c.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
}

func (r *real) report(t *testing.T, s *scene, seed uint64, x judged) string {
	t.Helper()
	r.wait = 100 * time.Millisecond // many worlds are tried
	return acltest.Report(s.world, seed, x.packet, x.at, func(w *acltest.World) bool {
		small := *s
		small.world = w
		var err error
		if small.rules, err = w.Compile(); err != nil {
			return false
		}
		_, bad := r.wrong(t, &small, []rules.Packet{x.packet})
		return bad
	})
}

// TestRealPackets sends the first packets of random flows through the kernel, under random
// policies and sessions: exactly those come out at the other side that the policy allows.
func TestRealPackets(t *testing.T) {
	r := newReal(t)
	begin := time.Now()
	for seed := range uint64(60) {
		rng := rand.New(rand.NewPCG(seed, 20))
		s := newScene(t, rng, 1+rng.IntN(12))
		if x, bad := r.wrong(t, s, s.packets(rng, 200)); bad {
			want, _ := s.oracle(x.packet, x.at)
			t.Fatalf("the policy says %v, the kernel does not:\n%s", want, r.report(t, s, seed, x))
		}
	}
	r.wire.look(200*time.Millisecond, func() bool { return false })
	for id, p := range r.refused {
		if r.wire.arrived[id] {
			t.Errorf("%+v came through late, against the policy", p)
		}
	}
	t.Logf("%d real packets in %v, %d of them came through", r.n, time.Since(begin).Round(time.Millisecond), r.yes)
	if r.n < 2000 || r.yes < r.n/30 || r.asked < 100 {
		t.Errorf("%d packets, %d came through, %d to service addresses: too few to show anything", r.n, r.yes, r.asked)
	}
}

// TestRealPacketsFail: a policy that the kernel does not follow is found out.
func TestRealPacketsFail(t *testing.T) {
	for name, broken := range map[string]func(s *scene, p rules.Packet, at time.Time) (bool, bool){
		"ports are off by one": func(s *scene, p rules.Packet, at time.Time) (bool, bool) {
			p.DstPort++
			return s.oracle(p, at)
		},
		"codes are never old": func(s *scene, p rules.Packet, at time.Time) (bool, bool) {
			p.SrcSession.Code, p.DstSession.Code = at, at
			return s.oracle(p, at)
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := newReal(t)
			r.oracle, r.wait = broken, 100*time.Millisecond
			for seed := range uint64(40) {
				rng := rand.New(rand.NewPCG(seed, 21))
				s := newScene(t, rng, 6)
				x, bad := r.wrong(t, s, s.packets(rng, 100))
				if !bad {
					continue
				}
				if report := r.report(t, s, seed, x); strings.Count(report, `"src"`) != 1 {
					t.Errorf("more than one grant is left:\n%s", report)
				}
				return
			}
			t.Error("the fault is not found")
		})
	}
}
