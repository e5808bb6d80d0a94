package rules

import (
	"iter"
	"net/netip"
	"slices"
	"time"
)

// RoleID names a set of grants that a source has. Role 0 has none.
type RoleID uint32

// ZoneID names a set of grants' destinations that an address belongs to. Zone 0 has none.
type ZoneID uint32

// ClassID names the set of grants that cover one port range of one zone. Class 0 has none.
type ClassID uint32

// Ports is a sorted, disjoint piece of a zone: these ports of this protocol are in Class.
type Ports struct {
	Proto       uint8 // IP protocol number
	First, Last uint16
	Class       ClassID
}

// PrefixRole gives the addresses of a prefix that are not devices' a role.
type PrefixRole struct {
	Prefix netip.Prefix
	Role   RoleID
}

// PrefixZone gives them a zone.
type PrefixZone struct {
	Prefix netip.Prefix
	Zone   ZoneID
}

// Allow says what one role may do with one class, and under which condition.
type Allow struct {
	Role  RoleID
	Class ClassID
	// MFA is how fresh the code must be. 0 means "off": an enabled device is enough.
	MFA time.Duration
	// Until is when this ends by "hours" or "expires"; zero if it does not.
	Until time.Time
}

// Ruleset is a policy compiled against devices. It is immutable and safe for
// concurrent use; With gives a new one that shares what did not change.
//
// Its enforceable form, which both planes use, is a chain of lookups:
//
//	source address -> role      (devices by exact address, others by prefix)
//	destination    -> zone      (the same)
//	zone, proto, destination port -> class
//	role, class    -> allowed, with which freshness
type Ruleset struct{ c *compiled }

// Device returns the role and zone of a device's address; ok is false for others.
func (r *Ruleset) Device(a netip.Addr) (role RoleID, zone ZoneID, ok bool) {
	d, ok := r.c.devices.Lookup(a.Unmap())
	if !ok {
		return 0, 0, false
	}
	return d.Role, d.Zone, true
}

// Sources returns the roles of addresses that are not devices, sorted and disjoint.
// The tunnel's own prefixes are in none of them: who is not enrolled has no role there.
func (r *Ruleset) Sources() []PrefixRole { return slices.Clone(r.c.sources) }

// Destinations returns the zones of addresses that are not devices, sorted and disjoint.
// Of the tunnel's own prefixes, only the gateway's addresses and those of resources can be
// among them.
func (r *Ruleset) Destinations() []PrefixZone { return slices.Clone(r.c.destinations) }

// Zones yields every zone with its sorted disjoint port ranges, in order of id.
// A protocol without ports has the one range 0-65535. The ranges must not be changed.
func (r *Ruleset) Zones() iter.Seq2[ZoneID, []Ports] {
	return func(yield func(ZoneID, []Ports) bool) {
		for id := 1; id < len(r.c.zones); id++ {
			if !yield(ZoneID(id), r.c.zones[id].ports) {
				return
			}
		}
	}
}

// Ports are the sorted disjoint port ranges of one zone. They must not be changed.
func (r *Ruleset) Ports(z ZoneID) []Ports { return r.c.zones[z].ports }

// Shape changes when Sources, Destinations, Zones or Allows may answer
// otherwise than before: with a new policy, or with a device whose role or zone is new.
// Two Rulesets of equal Shape differ in devices alone.
func (r *Ruleset) Shape() uint64 { return r.c.shape }

// Reach is one thing that a source may reach now, or could.
type Reach struct {
	Name     string // the resource, host, tag, user or prefix as the policy names it
	Resource bool   // Name is a resource's, and Prefix its service address
	Prefix   netip.Prefix
	Proto    uint8 // 0 = any
	First    uint16
	Last     uint16
	Verdict
}
