package rules

import (
	"cmp"
	"math"
	"net/netip"
	"slices"
	"time"

	"vpnd/acl/internal/bitset"
	"vpnd/acl/internal/ranges"
	"vpnd/acl/language"
)

// Reaches lists what the device at a may reach at now, and what it cannot reach and
// why: the destinations of every grant that has the device as a source, at any of its
// addresses. Destinations that are people or tags have no Prefix, and their Verdict
// takes the other device for signed in.
func (r *Ruleset) Reaches(a netip.Addr, s Session, now time.Time) []Reach {
	c := r.c
	d, ok := c.devices.Lookup(a.Unmap())
	if !ok {
		return nil
	}
	book := newAddressBook(c.policy, c.options, NewBudget(math.MaxInt))
	var out []Reach
	all := bitset.NewScratch(len(c.rules)) // what the device is a source of at any address
	for _, from := range d.Subject.Addrs {
		at, ok := c.devices.Lookup(from.Unmap())
		if !ok {
			continue
		}
		role, is4 := c.roles[at.Role], from.Unmap().Is4()
		all.Or(role)
		for name, t := range c.named(role) {
			var prefixes []netip.Prefix
			if t.Kind == language.SelectAny {
				prefixes = Everywhere[:]
			} else if t.Kind == language.SelectResource {
				out = c.reachService(out, role, t.Name, is4, s, now)
			} else if book.Has(t) {
				prefixes = book.Of(t)
			}
			for _, p := range prefixes {
				if p.Addr().Is4() == is4 {
					out = c.reachPrefix(out, role, name, p, s, now)
				}
			}
		}
	}
	role := bitset.New(all)
	for _, t := range c.named(role) {
		if t.Kind != language.SelectAny && t.Kind != language.SelectResource && !book.Has(t) {
			out = c.reachDevices(out, role, t, s, now)
		}
	}
	slices.SortFunc(out, func(a, b Reach) int {
		return cmp.Or(cmp.Compare(a.Name, b.Name), comparePrefixesOrNone(a.Prefix, b.Prefix),
			cmp.Compare(a.Proto, b.Proto), cmp.Compare(a.First, b.First), cmp.Compare(a.Last, b.Last))
	})
	return slices.Compact(out)
}

// named are the destinations of the rules of a role, by their text.
func (c *compiled) named(role bitset.Set) map[string]language.Selector {
	named := map[string]language.Selector{}
	role.Each(func(n int) bool {
		for _, t := range c.rules[n].Dst {
			named[t.String()] = t
		}
		return true
	})
	return named
}

func comparePrefixesOrNone(a, b netip.Prefix) int {
	switch {
	case !a.IsValid() || !b.IsValid():
		return cmp.Compare(a.Bits(), b.Bits())
	default:
		return ranges.ComparePrefixes(a, b)
	}
}

// reachPrefix lists the port ranges of a prefix that a grant names: what of it is
// reached by grants that contain all of it.
func (c *compiled) reachPrefix(out []Reach, role bitset.Set, name string, p netip.Prefix, s Session, now time.Time) []Reach {
	n, ok := c.dstIn.LookupPrefix(p)
	if !ok {
		return out
	}
	at := circumstances{now: now, srcDev: true, src: s}
	return c.reachRules(out, role, c.dstSets[n], Reach{Name: name, Prefix: p}, p.Addr().Is4(), &at)
}

// reachService lists the ports of a resource at its service address of one family.
func (c *compiled) reachService(out []Reach, role bitset.Set, name string, is4 bool, s Session, now time.Time) []Reach {
	i, ok := slices.BinarySearchFunc(c.services, name, func(s service, name string) int { return cmp.Compare(s.resource.Name, name) })
	if !ok {
		return out
	}
	at := circumstances{now: now, srcDev: true, src: s}
	for _, a := range c.services[i].addrs {
		if a.Is4() == is4 {
			like := Reach{Name: name, Prefix: netip.PrefixFrom(a, a.BitLen()), Resource: true}
			out = c.reachRules(out, role, c.services[i].rules, like, is4, &at)
		}
	}
	return out
}

// reachDevices lists the port ranges of devices that a grant selects.
func (c *compiled) reachDevices(out []Reach, role bitset.Set, t language.Selector, s Session, now time.Time) []Reach {
	rules := bitset.NewScratch(len(c.rules))
	if t.Kind == language.SelectSelf {
		rules.AddAll(c.self)
	} else {
		rules.AddAll(c.program.dst[deviceKeyOf(t)])
	}
	at := circumstances{now: now, srcDev: true, dstDev: true, src: s, dst: Session{Until: now.Add(c.options.Session), Code: now}}
	return c.reachRules(out, role, bitset.New(rules), Reach{Name: t.String()}, true, &at)
}

func (c *compiled) reachRules(out []Reach, role, rules bitset.Set, like Reach, is4 bool, at *circumstances) []Reach {
	// A rule that does not have this role as its source plays no part.
	mine := rules.Filter(role.Has)
	start := len(out)
	c.sweep(mine, nil, bitset.NewScratch(len(c.rules)), func(proto uint8, first, last uint16, covering bitset.Scratch) bool {
		if is4 && proto == language.ProtoICMPv6 || !is4 && proto == language.ProtoICMP {
			return true
		}
		x := c.newClass(bitset.New(covering))
		like.Verdict = c.decide(role, &x, at)
		like.Proto, like.First, like.Last = proto, first, last
		if n := len(out); n > start && out[n-1].Proto == proto && int(out[n-1].Last)+1 == int(first) && out[n-1].Verdict == like.Verdict {
			out[n-1].Last = last
			return true
		}
		out = append(out, like)
		return true
	})
	return out
}
