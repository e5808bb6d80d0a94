package acl

import "net/netip"

// maxPlaceWork bounds the address ranges that are looked at while IP sets are put
// together.
const maxPlaceWork = 5_000_000

// places finds the prefixes that targets stand for.
type places struct {
	policy *Policy
	hosts  map[string][]netip.Prefix
	sets   map[string]prefixSet
	lists  map[string][]netip.Prefix // of IP sets
	work   int
}

func newPlaces(p *Policy, o Options, f *faults) *places {
	pl := &places{policy: p, hosts: map[string][]netip.Prefix{}, sets: map[string]prefixSet{}, lists: map[string][]netip.Prefix{}}
	for _, a := range o.Gateway {
		a = a.Unmap()
		pl.hosts[appHost] = append(pl.hosts[appHost], netip.PrefixFrom(a, a.BitLen()))
	}
	for name, h := range p.hosts {
		pl.hosts[name] = []netip.Prefix{h.prefix}
	}
	for _, name := range p.IPSets() {
		s := pl.ipset(name)
		pl.lists[name] = s.prefixes()
		if pl.work > maxPlaceWork {
			f.errorf(p.ipsets[name].at, "the IP sets take too much work: use fewer elements, and put the \"remove\" after all \"add\"")
			break
		}
	}
	return pl
}

// ipset puts an IP set together; its elements work in order. Parse has made sure that
// none contains itself.
func (pl *places) ipset(name string) prefixSet {
	if s, ok := pl.sets[name]; ok {
		return s
	}
	var s prefixSet
	var pending []netip.Prefix // added since the last remove
	flush := func() {
		if len(pending) > 0 {
			s.addSet(setOfPrefixes(pending...))
			pending = nil
		}
	}
	for _, op := range pl.policy.ipsets[name].ops {
		if pl.work += len(s.v4) + len(s.v6) + 1; pl.work > maxPlaceWork {
			break
		}
		t := op.target
		var list []netip.Prefix
		switch t.kind {
		case ipsetTarget:
			o := pl.ipset(t.name)
			pl.work += len(o.v4) + len(o.v6)
			flush()
			if op.remove {
				s.removeSet(o)
			} else {
				s.addSet(o)
			}
			continue
		case hostTarget:
			list = pl.hosts[t.name]
		default:
			list = []netip.Prefix{t.prefix}
		}
		if op.remove {
			flush()
			s.removeSet(setOfPrefixes(list...))
		} else {
			pending = append(pending, list...)
		}
	}
	flush()
	pl.sets[name] = s
	return s
}

// has tells whether a target stands for addresses rather than for devices.
func (pl *places) has(t target) bool {
	return t.kind == prefixTarget || t.kind == hostTarget || t.kind == ipsetTarget
}

func (pl *places) of(t target) []netip.Prefix {
	switch t.kind {
	case prefixTarget:
		return []netip.Prefix{t.prefix}
	case hostTarget:
		return pl.hosts[t.name]
	default:
		return pl.lists[t.name]
	}
}
