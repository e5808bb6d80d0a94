package rules

import (
	"iter"
	"math"
	"net/netip"
	"time"

	"vpnd/acl/internal/bitset"
	"vpnd/acl/language"
)

// What follows is for package review, which tells people what the tables say: the numbered
// rules behind the lookups. A rule is a grant, or the part of it that has the same ports.

// Policy is what the Ruleset was compiled from.
func (r *Ruleset) Policy() *language.Policy { return r.c.policy }

// Options are what it was compiled with.
func (r *Ruleset) Options() Options { return r.c.options }

// AddressBook has the prefixes of what the policy names.
func (r *Ruleset) AddressBook() *AddressBook {
	return newAddressBook(r.c.policy, r.c.options, NewBudget(math.MaxInt))
}

// Enrolled is the device at an address; nil if there is none.
func (r *Ruleset) Enrolled(a netip.Addr) *Enrolled {
	d, _ := r.c.devices.Lookup(a.Unmap())
	return d
}

// AllEnrolled yields every address of a device, in no order.
func (r *Ruleset) AllEnrolled() iter.Seq2[netip.Prefix, *Enrolled] { return r.c.devices.All() }

// EnrolledIn yields the devices' addresses inside of a prefix.
func (r *Ruleset) EnrolledIn(p netip.Prefix) iter.Seq2[netip.Prefix, *Enrolled] {
	return r.c.devices.Subnets(p)
}

// RoleAt is the role of any address, RulesOf the rules of which it is a source.
func (r *Ruleset) RoleAt(a netip.Addr) RoleID {
	role, _, _ := r.c.ends(a, a)
	return role
}

// ZoneAt is the zone of any address for others than its own user.
func (r *Ruleset) ZoneAt(a netip.Addr) ZoneID {
	_, zone, _ := r.c.ends(a, a)
	return zone
}

// Ends are the role of a packet's source and the zone of its destination.
func (r *Ruleset) Ends(src, dst netip.Addr) (RoleID, ZoneID) {
	role, zone, _ := r.c.ends(src.Unmap(), dst.Unmap())
	return role, zone
}

// RulesFrom are the rules that have a role as a source.
func (r *Ruleset) RulesFrom(role RoleID) bitset.Set { return r.c.roles[role] }

// RulesTo are the rules that lead to a zone.
func (r *Ruleset) RulesTo(zone ZoneID) bitset.Set { return r.c.zones[zone].set }

// Rules are all rules, by their numbers. They must not be changed.
func (r *Ruleset) Rules() []rule { return r.c.rules }

// RulesToSelf are the rules that lead to autogroup:self. They must not be changed.
func (r *Ruleset) RulesToSelf() []uint32 { return r.c.self }

// Condition is the condition of a rule.
func (r *Ruleset) Condition(n int) *Condition { return &r.c.conds[r.c.rules[n].cond] }

// Holds tells whether the condition of a rule holds for a packet.
func (r *Ruleset) Holds(n int, p Packet, now time.Time) Verdict {
	_, _, at := r.c.ends(p.Src.Unmap(), p.Dst.Unmap())
	at.now, at.src, at.dst = now, p.SrcSession, p.DstSession
	v := r.Condition(n).hold(&at, r.c.options.Session)
	v.Grant = r.c.rules[n].Grant
	return v
}

// SourceRules are the rules that a device would be a source of that does not exist yet,
// whatever its address will be.
func (r *Ruleset) SourceRules(s *Subject) bitset.Set {
	rules := bitset.NewScratch(len(r.c.rules))
	r.c.selected(r.c.program.src, s, rules)
	return bitset.New(rules)
}

// DestinationRules are the rules that would lead to such a device.
func (r *Ruleset) DestinationRules(s *Subject) bitset.Set {
	rules := bitset.NewScratch(len(r.c.rules))
	r.c.selected(r.c.program.dst, s, rules)
	rules.AddAll(r.c.everywhere) // a grant to everything reaches it wherever it comes
	return bitset.New(rules)
}

// Sweep splits the ports of rules into disjoint ranges and calls each with every range and
// the rules that cover it.
func (r *Ruleset) Sweep(rules bitset.Set, each func(proto uint8, first, last uint16, covering bitset.Set)) {
	r.c.sweep(rules, nil, bitset.NewScratch(len(r.c.rules)), func(proto uint8, first, last uint16, covering bitset.Scratch) bool {
		each(proto, first, last, bitset.New(covering))
		return true
	})
}
