package netstack

import (
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
	"os"
	"testing"
	"time"

	"vpnd/acl/acltest"
	"vpnd/acl/language"
	"vpnd/acl/rules"
	"vpnd/internal/dataplane"
	"vpnd/test/report"
)

// TestBench measures a verdict of the filter at the size that is promised
// (docs/benchmarks.md). In a test run it is small and proves that a verdict allocates nothing.
func TestBench(t *testing.T) {
	l, rounds := acltest.Large{Devices: 100, Groups: 5, Grants: 10, Target: "192.168.50.2"}, 0
	if os.Getenv("VPND_BENCH") != "" {
		l.Devices, l.Groups, l.Grants, rounds = 10_000, 500, 1000, 5
	}
	p, flows := largePlane(t, l)
	now := time.Now()
	i := 0
	judge := func() {
		if _, ok := p.judge(flows[i%len(flows)], now); !ok {
			t.Fatal("a flow that is granted is refused")
		}
		i++
	}
	allocs := testing.AllocsPerRun(1000, judge)
	if allocs != 0 {
		t.Errorf("a verdict allocates %v times", allocs)
	}
	if rounds == 0 {
		return
	}
	best := time.Hour
	for range rounds {
		r := testing.Benchmark(func(b *testing.B) {
			for b.Loop() {
				judge()
			}
		})
		best = min(best, time.Duration(r.NsPerOp()))
	}
	r := &report.Report{}
	r.Machine("The netstack filter")
	r.Judge(best <= 500 && allocs == 0, "a verdict with %d devices and %d grants: %d ns, the best of %d rounds over %d flows (at most 500), %.0f allocations (none)",
		l.Devices, l.Grants, best, rounds, len(flows), allocs)
}

// largePlane is a plane in which everybody is signed in, and flows that the policy grants.
func largePlane(t *testing.T, l acltest.Large) (*Plane, []*flow) {
	t.Helper()
	p := offline(t, "{}")
	p.near.Store(&dataplane.Gateway{Addrs: acltest.LargeOptions.Gateway, Network: acltest.LargeOptions.Network})
	subjects := l.Subjects()
	for i, s := range subjects {
		var k dataplane.Key
		binary.BigEndian.PutUint32(k[:], uint32(i+1))
		d := dataplane.Device{ID: s.Device, Name: s.Device, PublicKey: k, Addrs: s.Addrs}
		n := newPeer(d)
		p.byKey[k] = n
		p.devices.put(n)
		if err := p.putSession(signIn(d, uint32(i+1), time.Hour)); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { p.endSession(n, nil) })
	}
	policy, err := language.Parse([]byte(l.Text()))
	if err != nil {
		t.Fatal(err)
	}
	ruleset, err := rules.Compile(policy, acltest.LargeOptions, subjects)
	if err != nil {
		t.Fatal(err)
	}
	p.rules.Store(ruleset)
	rng, now := rand.New(rand.NewPCG(1, 2)), time.Now()
	var flows []*flow
	for tries := 0; len(flows) < 1024 && tries < 2_000_000; tries++ {
		g := rng.IntN(l.Grants)
		port := uint16(1000 + g)
		if g%2 == 1 {
			port = uint16(10_000 + g)
		}
		src := p.devices.get(l.Addr(rng.IntN(l.Devices), true))
		f := &flow{kind: kindResource, src: src, srcOpen: src.session.Load().open(now),
			key: flowKey{src: netip.AddrPortFrom(src.dev.Addrs[0], 5000), dst: netip.AddrPortFrom(l.Host(g), port), proto: protoTCP}}
		if _, ok := p.judge(f, now); ok {
			flows = append(flows, f)
		}
	}
	if len(flows) == 0 {
		t.Fatal("nothing is granted to anybody")
	}
	return p, flows
}
