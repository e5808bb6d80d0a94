package rules

import (
	"net/netip"
	"time"

	"vpnd/acl/internal/bitset"
)

// Growth tells what Zones and Allows say at now beyond what they said of an earlier Ruleset,
// from which With and Regroup have made r: they only ever add to the numbered tables. ok is
// false if r was not made so, and anything may be different.
func (r *Ruleset) Growth(before *Ruleset, now time.Time) (zones []ZoneID, allows []Allow, ok bool) {
	a, b := before.c, r.c
	// Each Compile makes prefix tables of its own, and what is derived shares them.
	if a.srcIn != b.srcIn || !extends(a.roles, b.roles, func(s bitset.Set) bitset.Set { return s }) || !extends(a.zones, b.zones, func(z zone) bitset.Set { return z.set }) ||
		!extends(a.classes, b.classes, func(x class) bitset.Set { return x.set }) {
		return nil, nil, false
	}
	for id := len(a.zones); id < len(b.zones); id++ {
		zones = append(zones, ZoneID(id))
	}
	open, until := b.timesAt(now)
	byRole := make([][]Allow, len(b.roles))
	for id := range b.classes {
		first := len(a.roles) // roles before know the classes before
		if id >= len(a.classes) {
			first = 0
		}
		if first == len(b.roles) {
			continue
		}
		for _, x := range b.classes[id].conds {
			if !open[x.cond] {
				continue
			}
			for role := first; role < len(b.roles); role++ {
				if x.set.Meets(b.roles[role]) {
					byRole[role] = append(byRole[role], Allow{RoleID(role), ClassID(id), b.conds[x.cond].mfa, until[x.cond]})
				}
			}
		}
	}
	for _, list := range byRole {
		allows = append(allows, longest(list)...)
	}
	return zones, allows, true
}

// extends tells whether after is before with more at its end. Tables are copied when they
// grow, but what is in them is not.
func extends[T any](before, after []T, setOf func(T) bitset.Set) bool {
	n := len(before)
	if n > len(after) {
		return false
	}
	// Number 0 is the empty set of everybody; what came last says where a table came from.
	return n == 1 || setOf(before[n-1]).Shares(setOf(after[n-1]))
}

// Loses tells whether the device at a may be refused something that it was allowed, in
// either direction, by an earlier Ruleset from which With and Regroup have made r.
func (r *Ruleset) Loses(before *Ruleset, a netip.Addr) bool {
	was, ok := before.c.devices.Lookup(a.Unmap())
	if !ok {
		return false
	}
	is, ok := r.c.devices.Lookup(a.Unmap())
	if !ok || is.User != was.User {
		return true
	}
	return !before.c.roles[was.Role].Within(r.c.roles[is.Role]) || !before.c.zones[was.Zone].set.Within(r.c.zones[is.Zone].set)
}
