package filter

import (
	"hash/fnv"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	"vpnd/acl/language"
	"vpnd/internal/dataplane"
)

// Where the relay of services would listen.
const relayTCP, relayUDP = 45081, 45082

// localTarget is an address that tests have for one of the gateway's own.
var localTarget = netip.MustParseAddr("10.1.2.9")

// published are the resources of a scene as a plane is told of them. Most lead to the same
// few hosts, some at another port; some to the relay, and some nowhere.
func (s *scene) published(tb testing.TB) (out []dataplane.Service) {
	tb.Helper()
	p, err := language.Parse(s.world.Text())
	if err != nil {
		tb.Fatal(err)
	}
	for _, name := range slices.Sorted(maps.Keys(s.world.Resources)) {
		x := dataplane.Service{Name: name, Addrs: s.world.Options.Services[name], Ports: p.Resource(name).Ports, Hosts: s.hosts(name)}
		if len(x.Ports) == 1 && x.Ports[0].First == x.Ports[0].Last {
			x.ToPort = 8000
		}
		switch s.world.Resources[name].Ports[0] {
		case "tcp:443":
			x.ProxyV2 = true
		case "tcp:22":
			x.Path, x.ToPort = "/run/some.sock", 0
		}
		out = append(out, x)
	}
	return out
}

// hosts are where a resource leads to; none where nobody knows.
func (s *scene) hosts(name string) []netip.Addr {
	to := s.world.Resources[name].To
	if a, err := netip.ParseAddr(to); err == nil {
		return []netip.Addr{a}
	}
	h := fnv.New32()
	h.Write([]byte(name + s.world.Resources[name].Ports[0]))
	switch h.Sum32() % 3 {
	case 0:
		return []netip.Addr{localTarget}
	case 1:
		return []netip.Addr{netip.MustParseAddr("fd01:2::3"), netip.MustParseAddr("10.1.2.3")}
	}
	return nil
}

// moved is what a change makes of the services: one of them leads to somewhere else.
func (s *scene) moved(rng *rand.Rand) []dataplane.Service {
	if len(s.services) == 0 || rng.IntN(2) == 0 {
		return nil
	}
	s.services = slices.Clone(s.services)
	x := &s.services[rng.IntN(len(s.services))]
	x.Hosts = [][]netip.Addr{nil, {localTarget}, {netip.MustParseAddr("10.1.2.4")}, {netip.MustParseAddr("fd01:2::4")}}[rng.IntN(4)]
	return s.services
}

// nowhere tells whether an address is a resource's that leads nowhere.
func (s *scene) nowhere(a netip.Addr) bool {
	return slices.ContainsFunc(s.services, func(x dataplane.Service) bool {
		return slices.Contains(x.Addrs, a) && x.Path == "" && len(x.Hosts) == 0
	})
}
