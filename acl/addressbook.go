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
	b := &places{policy: p, hosts: map[string][]netip.Prefix{}, sets: map[string]prefixSet{}, lists: map[string][]netip.Prefix{}}
	for _, a := range o.Gateway {
		a = a.Unmap()
		b.hosts[appHost] = append(b.hosts[appHost], netip.PrefixFrom(a, a.BitLen()))
	}
	for _, name := range p.Hosts() {
		if x, ok := p.HostPrefix(name); ok {
			b.hosts[name] = []netip.Prefix{x}
		}
	}
	for _, name := range p.IPSets() {
		s := b.ipset(name)
		b.lists[name] = s.prefixes()
		if b.work > maxPlaceWork {
			f.errorf(p.IPSet(name).at, "the IP sets take too much work: use fewer elements, and put the \"remove\" after all \"add\"")
			break
		}
	}
	return b
}

// ipset puts an IP set together; its elements work in order. Parse has made sure that
// none contains itself.
func (b *places) ipset(name string) prefixSet {
	if s, ok := b.sets[name]; ok {
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
	for _, op := range b.policy.IPSet(name).ops {
		if b.work += len(s.v4) + len(s.v6) + 1; b.work > maxPlaceWork {
			break
		}
		t := op.target
		var list []netip.Prefix
		switch t.kind {
		case ipsetTarget:
			o := b.ipset(t.name)
			b.work += len(o.v4) + len(o.v6)
			flush()
			if op.remove {
				s.removeSet(o)
			} else {
				s.addSet(o)
			}
			continue
		case hostTarget:
			list = b.hosts[t.name]
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
	b.sets[name] = s
	return s
}

// has tells whether a target stands for addresses rather than for devices.
func (b *places) has(t target) bool {
	return t.kind == prefixTarget || t.kind == hostTarget || t.kind == ipsetTarget
}

func (b *places) of(t target) []netip.Prefix {
	switch t.kind {
	case prefixTarget:
		return []netip.Prefix{t.prefix}
	case hostTarget:
		return b.hosts[t.name]
	default:
		return b.lists[t.name]
	}
}
