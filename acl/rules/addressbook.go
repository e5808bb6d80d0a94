package rules

import (
	"net/netip"

	"vpnd/acl/internal/ranges"
	"vpnd/acl/language"
)

// AddressBook finds the prefixes that selectors stand for.
type AddressBook struct {
	policy *language.Policy
	hosts  map[string][]netip.Prefix
	sets   map[string]ranges.Set
	lists  map[string][]netip.Prefix // of IP sets
	budget *Budget
}

func newAddressBook(p *language.Policy, o Options, budget *Budget) *AddressBook {
	b := &AddressBook{policy: p, hosts: map[string][]netip.Prefix{}, sets: map[string]ranges.Set{}, lists: map[string][]netip.Prefix{}, budget: budget}
	for _, a := range o.Gateway {
		a = a.Unmap()
		b.hosts[language.AppHost] = append(b.hosts[language.AppHost], netip.PrefixFrom(a, a.BitLen()))
	}
	for _, name := range p.Hosts() {
		if x, ok := p.HostPrefix(name); ok {
			b.hosts[name] = []netip.Prefix{x}
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
	var s ranges.Set
	var pending []netip.Prefix // added since the last remove
	flush := func() {
		if len(pending) > 0 {
			s.AddSet(ranges.SetOf(pending...))
			pending = nil
		}
	}
	for _, op := range b.policy.IPSet(name).Ops {
		if !b.budget.Spend(perRange*(1+len(s.V4)+len(s.V6)), op.Selector.At) {
			break
		}
		t := op.Selector
		var list []netip.Prefix
		switch t.Kind {
		case language.SelectIPSet:
			o := b.ipset(t.Name)
			if !b.budget.Spend(perRange*(len(o.V4)+len(o.V6)), op.Selector.At) {
				break
			}
			flush()
			if op.Remove {
				s.RemoveSet(o)
			} else {
				s.AddSet(o)
			}
			continue
		case language.SelectHost:
			list = b.hosts[t.Name]
		default:
			list = []netip.Prefix{t.Prefix}
		}
		if op.Remove {
			flush()
			s.RemoveSet(ranges.SetOf(list...))
		} else {
			pending = append(pending, list...)
		}
	}
	flush()
	b.sets[name] = s
	return s
}

// Has tells whether a selector stands for addresses rather than for devices.
func (b *AddressBook) Has(t language.Selector) bool {
	return t.Kind == language.SelectPrefix || t.Kind == language.SelectHost || t.Kind == language.SelectIPSet
}

// Of are the prefixes of such a selector.
func (b *AddressBook) Of(t language.Selector) []netip.Prefix {
	switch t.Kind {
	case language.SelectPrefix:
		return []netip.Prefix{t.Prefix}
	case language.SelectHost:
		return b.hosts[t.Name]
	default:
		return b.lists[t.Name]
	}
}
