package rules

import (
	"net/netip"
	"slices"

	"vpnd/acl/internal/bitset"
	"vpnd/acl/internal/ranges"
	"vpnd/acl/language"
)

// service is a resource at its service addresses. They lie in the upper half of the tunnel's
// network, where no prefix of a grant reaches: a rule leads to a resource by its name, or by
// leading to everything.
type service struct {
	resource *language.Resource
	addrs    []netip.Addr
	rules    bitset.Set
}

// publish makes the services of the rules that lead to resources.
func (pr *program) publish(to map[string][]uint32) {
	scratch := bitset.NewScratch(len(pr.rules))
	for _, name := range pr.policy.Resources() {
		list := to[name]
		if len(list) > 0 && !pr.spend(list[len(list)-1], perSet+8*len(scratch)) {
			return
		}
		scratch.Clear()
		scratch.AddAll(list)
		s := service{resource: pr.policy.Resource(name), rules: bitset.New(scratch)}
		for _, a := range pr.options.Services[name] {
			s.addrs = append(s.addrs, a.Unmap())
		}
		pr.services = append(pr.services, s)
	}
}

// provisional gives the resources of a policy the first addresses of each upper half.
func provisional(p *language.Policy, network []netip.Prefix) map[string][]netip.Addr {
	services := map[string][]netip.Addr{}
	for _, n := range network {
		u := Upper(n)
		if !u.IsValid() {
			continue
		}
		a := u.Addr()
		for _, name := range p.Resources() {
			if a = a.Next(); !u.Contains(a) {
				break
			}
			services[name] = append(services[name], a)
		}
	}
	return services
}

// placeServices gives every service address a zone.
func (c *compiled) placeServices(b *builder) []mapped[ZoneID] {
	var list []mapped[ZoneID]
	for _, s := range c.services {
		if s.rules.Count() == 0 {
			continue
		}
		for _, a := range s.addrs {
			b.scratch.Clear()
			b.scratch.Or(s.rules)
			list = append(list, mapped[ZoneID]{netip.PrefixFrom(a, a.BitLen()), b.zone(b.scratch, false)})
		}
	}
	return list
}

// mergePlaced merges placed service addresses into sorted placed prefixes.
func mergePlaced(list, services []mapped[ZoneID]) []mapped[ZoneID] {
	if len(services) == 0 {
		return list
	}
	list = append(list, services...)
	slices.SortFunc(list, func(a, b mapped[ZoneID]) int { return ranges.ComparePrefixes(a.prefix, b.prefix) })
	return list
}

// isPlace tells whether a selector stands for addresses. Resources answer devices alone.
func isPlace(t language.Selector) bool {
	return t.Kind == language.SelectPrefix || t.Kind == language.SelectHost || t.Kind == language.SelectIPSet
}

// alikePorts are the resources that have the same ports.
type alikePorts struct {
	resources []*language.Resource
	selectors []language.Selector
}

// byPorts groups the resources of a policy by their ports: a grant of everything has one rule
// for each group, not for each resource.
func byPorts(p *language.Policy) []alikePorts {
	at := map[string]int{}
	var out []alikePorts
	for _, name := range p.Resources() {
		r := p.Resource(name)
		key := language.SpansText(r.Ports)
		n, ok := at[key]
		if !ok {
			n = len(out)
			at[key] = n
			out = append(out, alikePorts{})
		}
		out[n].resources = append(out[n].resources, r)
		out[n].selectors = append(out[n].selectors, language.Selector{Kind: language.SelectResource, Name: name, At: r.At})
	}
	return out
}

// Upper is the half of a prefix of the tunnel's network that is kept for resources.
func Upper(network netip.Prefix) netip.Prefix {
	network = network.Masked()
	if network.IsSingleIP() {
		return netip.Prefix{}
	}
	b := network.Addr().AsSlice()
	b[network.Bits()/8] |= 0x80 >> (network.Bits() % 8)
	a, _ := netip.AddrFromSlice(b)
	return netip.PrefixFrom(a, network.Bits()+1)
}

// checkUpper refuses grants of addresses that are kept for resources: a resource is granted by
// its name.
func (pr *program) checkUpper(f *language.Faults) {
	if !limited(pr.policy, pr.options) {
		return // they never granted anything
	}
	at := map[netip.Addr]string{}
	for name, addrs := range pr.options.Services {
		for _, a := range addrs {
			at[a.Unmap()] = name
		}
	}
	kept := func(prefix netip.Prefix) (u netip.Prefix) {
		for _, n := range pr.network {
			if u := Upper(n); u.IsValid() && u.Bits() <= prefix.Bits() && u.Contains(prefix.Addr()) {
				return u
			}
		}
		return u
	}
	known := map[string]netip.Prefix{}
	check := func(t language.Selector) {
		prefix, found := pr.policy.Names(t, known, func(x netip.Prefix) bool { return kept(x).IsValid() })
		if !found {
			return
		}
		if name := at[prefix.Addr()]; name != "" && prefix.IsSingleIP() {
			f.Errorf(t.At, language.CodeServiceAddress, "%s is the address of the resource %q: write its name", t, name)
		} else {
			f.Errorf(t.At, language.CodeServiceAddress, "%s lies in %s, the half of the tunnel's network that is kept for resources: publish what is meant in \"resources\", and write its name", t, kept(prefix))
		}
	}
	for _, g := range pr.policy.Grants() {
		for _, t := range g.Src {
			check(t)
		}
		for _, d := range g.Dst {
			check(d.Selector)
		}
	}
}
