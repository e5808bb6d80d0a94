package review

import (
	"cmp"
	"net/netip"
	"slices"
	"strings"

	"vpnd/acl/language"
	"vpnd/acl/rules"
)

// name finds names for prefixes: hosts', devices'.
func (d *differ) name() {
	d.names, d.devices = map[netip.Prefix]string{}, map[family]int{}
	for _, r := range []*rules.Ruleset{d.a, d.b} {
		for _, name := range r.Policy().Hosts() {
			if p, ok := r.Policy().HostPrefix(name); ok && (d.names[p] == "" || name < d.names[p]) {
				d.names[p] = name
			}
		}
	}
	for _, r := range []*rules.Ruleset{d.a, d.b} {
		for _, a := range r.Options().Gateway {
			d.names[netip.PrefixFrom(a.Unmap(), a.Unmap().BitLen())] = language.AppHost
		}
		for name, addrs := range r.Options().Services {
			for _, a := range addrs {
				d.names[netip.PrefixFrom(a.Unmap(), a.Unmap().BitLen())] = name
			}
		}
		for p, x := range r.AllEnrolled() {
			d.names[p] = x.Subject.Device
		}
	}
	for p := range d.addresses() {
		if u := d.userOf(p); u != "" {
			d.devices[family{u, p.Addr().Is4()}]++
		}
	}
}

// addresses are those of all devices, of before and after.
func (d *differ) addresses() map[netip.Prefix]bool {
	all := map[netip.Prefix]bool{}
	for _, r := range []*rules.Ruleset{d.a, d.b} {
		for p := range r.AllEnrolled() {
			all[p] = true
		}
	}
	return all
}

// userOf is the user of an untagged device that is the same before and after.
func (d *differ) userOf(p netip.Prefix) string {
	x, y := d.a.Enrolled(p.Addr()), d.b.Enrolled(p.Addr())
	switch {
	case x != nil && (y == nil || x.User == y.User):
		return x.User
	case y != nil && x == nil:
		return y.User
	}
	return ""
}

// places names prefixes.
func (d *differ) places(prefixes []netip.Prefix) []Place {
	of := map[string][]netip.Prefix{}
	for _, x := range prefixes {
		name := d.names[x]
		if name == "" {
			name = language.PrefixText(x)
		}
		of[name] = append(of[name], x)
	}
	out := make([]Place, 0, len(of))
	for name, list := range of {
		out = append(out, Place{name, list})
	}
	slices.SortFunc(out, func(a, b Place) int { return strings.Compare(a.Name, b.Name) })
	return out
}

// merge joins differences that say the same of other ends: both families of a host, all
// devices of a user.
func (d *differ) merge(list []Difference) []Difference {
	type what struct {
		ports         language.Span
		before, after string
		other         int
	}
	join := func(list []Difference, mine, other func(*Difference) *[]Place) []Difference {
		index := map[what]int{}
		var out []Difference
		var of, to [][][]Place
		for _, x := range list {
			key := what{language.Span{Proto: x.Proto, First: x.First, Last: x.Last}, x.Before, x.After, d.lists.id(*other(&x))}
			i, ok := index[key]
			if !ok {
				i = len(out)
				index[key] = i
				out, of, to = append(out, x), append(of, nil), append(to, nil)
			}
			of[i], to[i] = append(of[i], *mine(&x)), append(to[i], *other(&x))
		}
		for i := range out {
			*mine(&out[i]), *other(&out[i]) = d.lists.union(of[i]), d.lists.union(to[i])
		}
		return out
	}
	src := func(x *Difference) *[]Place { return &x.Sources }
	dst := func(x *Difference) *[]Place { return &x.Destinations }
	list = join(list, dst, src)
	list = join(list, src, dst)
	for i := range list {
		list[i].Sources = d.lists.renamed(list[i].Sources, d.people)
	}
	slices.SortFunc(list, func(a, b Difference) int {
		return cmp.Or(strings.Compare(d.lists.name(a.Sources), d.lists.name(b.Sources)),
			strings.Compare(d.lists.name(a.Destinations), d.lists.name(b.Destinations)),
			cmp.Compare(a.Proto, b.Proto), cmp.Compare(a.First, b.First))
	})
	return list
}

// people replaces all devices of a user by the user: all those of a family of addresses,
// if the other one plays no part.
func (d *differ) people(list []Place) []Place {
	count := map[family]int{}
	for _, p := range list {
		for _, x := range p.Prefixes {
			if u := d.userOf(x); u != "" {
				count[family{u, x.Addr().Is4()}]++
			}
		}
	}
	all := func(f family) bool { return count[f] == 0 || count[f] == d.devices[f] }
	var out []Place
	for _, p := range list {
		if u := d.userOf(p.Prefixes[0]); u != "" && all(family{u, true}) && all(family{u, false}) {
			p.Name = u
		}
		out = append(out, p)
	}
	return union([][]Place{out})
}
