package rules

import (
	"net/netip"

	"vpnd/acl/internal/ranges"
	"vpnd/acl/language"
)

// AddressBook finds the prefixes that selectors stand for.
type AddressBook struct {
	policy   *language.Policy
	hosts    map[string][]netip.Prefix
	services map[string][]netip.Prefix
	sets     map[string]ranges.Set
	lists    map[string][]netip.Prefix // of IP sets
	budget   *Budget
}

func newAddressBook(p *language.Policy, o Options, budget *Budget) *AddressBook {
	b := &AddressBook{policy: p, hosts: map[string][]netip.Prefix{}, services: map[string][]netip.Prefix{}, sets: map[string]ranges.Set{}, lists: map[string][]netip.Prefix{}, budget: budget}
	for _, a := range o.Gateway {
		a = a.Unmap()
		b.hosts[language.AppHost] = append(b.hosts[language.AppHost], netip.PrefixFrom(a, a.BitLen()))
	}
	for _, name := range p.Hosts() {
		if x, ok := p.HostPrefix(name); ok {
			b.hosts[name] = []netip.Prefix{x}
		}
	}
	for _, name := range p.Resources() {
		for _, a := range o.Services[name] {
			a = a.Unmap()
			b.services[name] = append(b.services[name], netip.PrefixFrom(a, a.BitLen()))
		}
	}
	for _, name := range p.IPSets() {
		s := b.ipset(name)
		at := p.IPSet(name).At
		var list []netip.Prefix
		if !s.EachPrefix(func(x netip.Prefix) bool {
			list = append(list, x)
			return budget.Spend(perRange, at)
		}) {
			break
		}
		b.lists[name] = list
	}
	return b
}

// ipset puts an IP set together; its elements work in order. Parse has made sure that
// none contains itself.
func (b *AddressBook) ipset(name string) ranges.Set {
	if s, ok := b.sets[name]; ok {
		return s
	}
	var s, run ranges.Set // run: what follows each other and is all added, or all removed
	var at language.TextRange
	removing := false
	flush := func() bool {
		if !b.budget.Spend(perRange*(1+len(s.V4)+len(s.V6)+len(run.V4)+len(run.V6)), at) {
			return false
		}
		run.V4, run.V6 = ranges.Merge(run.V4), ranges.Merge(run.V6)
		if removing {
			s.RemoveSet(run)
		} else {
			s.AddSet(run)
		}
		run = ranges.Set{}
		return true
	}
	for _, op := range b.policy.IPSet(name).Ops {
		if op.Remove != removing {
			if !flush() {
				break
			}
			removing = op.Remove
		}
		at = op.Selector.At
		o := b.element(op.Selector)
		if !b.budget.Spend(perRange*(1+len(o.V4)+len(o.V6)), at) {
			break
		}
		run.V4, run.V6 = append(run.V4, o.V4...), append(run.V6, o.V6...)
	}
	flush()
	b.sets[name] = s
	return s
}

// element is what an element of an IP set names.
func (b *AddressBook) element(t language.Selector) ranges.Set {
	switch t.Kind {
	case language.SelectIPSet:
		return b.ipset(t.Name)
	case language.SelectHost:
		return ranges.SetOf(b.hosts[t.Name]...)
	default:
		return ranges.SetOf(t.Prefix)
	}
}

// Has tells whether a selector stands for addresses rather than for devices.
func (b *AddressBook) Has(t language.Selector) bool {
	return isPlace(t) || t.Kind == language.SelectResource
}

// Of are the prefixes of such a selector.
func (b *AddressBook) Of(t language.Selector) []netip.Prefix {
	switch t.Kind {
	case language.SelectPrefix:
		return []netip.Prefix{t.Prefix}
	case language.SelectHost:
		return b.hosts[t.Name]
	case language.SelectResource:
		return b.services[t.Name]
	default:
		return b.lists[t.Name]
	}
}
