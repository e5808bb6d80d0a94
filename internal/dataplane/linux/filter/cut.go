package filter

import (
	"maps"
	"net/netip"
	"slices"
	"time"

	"vpnd/acl/rules"
	"vpnd/internal/dataplane"
	"vpnd/internal/dataplane/linux/tell"
)

// cut says which tracked flows a change has cost their permission.
type cut struct {
	refused bool         // all that are refused now
	dead    []uint32     // all with one of these marks: the flows of chains that are over
	broken  []uint32     // of those with these marks, what is refused now
	lost    []netip.Addr // of those from or to these devices, what is refused now
	gone    []netip.Addr // all from these devices, the portal's as well
	changed []netip.Addr // devices that came or went: what is refused now, and all to them that needs a session
	moved   []netip.Addr // all that asked for these service addresses, which were another resource's
}

func (c cut) empty() bool {
	return !c.refused && len(c.dead)+len(c.broken)+len(c.lost)+len(c.gone)+len(c.changed)+len(c.moved) == 0
}

// and is what both say.
func (c cut) and(o cut) cut {
	return cut{
		c.refused || o.refused, slices.Concat(c.dead, o.dead), slices.Concat(c.broken, o.broken),
		slices.Concat(c.lost, o.lost), slices.Concat(c.gone, o.gone), slices.Concat(c.changed, o.changed),
		slices.Concat(c.moved, o.moved),
	}
}

// whole says that all flows must be looked at, and not only those with some marks.
func (c cut) whole() bool { return c.refused || len(c.lost)+len(c.changed)+len(c.moved) > 0 }

// cutOf gives the flows of sessions and devices that are gone or renewed after a gap, and
// those that devices which have lost something may no longer have.
func cutOf(old, cur snapshot, c dataplane.Change, lost []netip.Addr, fresh []time.Duration, off bool, now time.Time) cut {
	out := cut{lost: lost, gone: goneOf(c, cur)}
	dead := make(map[uint32]bool)
	// Only a device that has a zone gets flows from others.
	reachable := func(a netip.Addr) bool { return old.devices[a].zone != 0 || cur.devices[a].zone != 0 }
	for a, s := range old.sessions {
		x := cur.sessions[a]
		for _, n := range s.serials() {
			dead[n] = true
		}
		if _, ok := cur.sessions[a]; !ok && reachable(a) {
			out.changed = append(out.changed, a)
		}
		if late(s, x, fresh) {
			out.broken = append(out.broken, x.serials()...)
		}
	}
	for _, s := range c.EndSessions {
		for _, code := range s.Codes {
			dead[code.Serial] = true
		}
	}
	for a, s := range cur.sessions {
		for _, n := range s.serials() {
			delete(dead, n)
		}
		// A session that begins revives nothing that others began while there was none.
		if was, ok := old.sessions[a]; (!ok || !was.until.After(now)) && reachable(a) {
			out.changed = append(out.changed, a)
		}
	}
	for _, d := range c.RemoveDevices {
		for _, a := range d.Addrs {
			if off || reachable(a) {
				out.changed = append(out.changed, a)
			}
		}
	}
	out.dead = slices.Sorted(maps.Keys(dead))
	return out
}

// goneOf are the addresses that c takes from devices and gives to no other.
func goneOf(c dataplane.Change, cur snapshot) (out []netip.Addr) {
	for _, d := range c.RemoveDevices {
		for _, a := range d.Addrs {
			if _, ok := cur.devices[a]; !ok {
				out = append(out, a)
			}
		}
	}
	return out
}

// late says whether the newest code of s came too late to carry on a chain of old.
func late(old, s session, fresh []time.Duration) bool {
	if len(old.codes) == 0 || len(s.codes) == 0 || len(fresh) == 0 {
		return false
	}
	gap := s.codes[len(s.codes)-1].At.Sub(old.codes[len(old.codes)-1].At)
	return gap >= fresh[len(fresh)-1]
}

// judge returns what says whether c cuts a flow, by the state s that is in force now.
func (c cut) judge(s *state, now time.Time) func(tracked) bool {
	dead, broken := setOf(c.dead), setOf(c.broken)
	lost, gone, changed, moved := setOf(c.lost), setOf(c.gone), setOf(c.changed), setOf(c.moved)
	return func(fl tracked) bool {
		// What a vpnd before this one has not told to the end is gone on with.
		if dead[fl.mark] || gone[fl.Src] || moved[fl.Dst] || c.refused && fl.mark&tell.MarkMask == tell.Mark {
			return true
		}
		if fl.mark == flowPortal {
			return false
		}
		if c.refused || broken[fl.mark] || lost[fl.Src] || lost[fl.Dst] || changed[fl.Src] {
			if !s.alive(fl, now) {
				return true
			}
		}
		// To a device: dead unless an "off" grant allows it without any session.
		return changed[fl.Dst] && !changed[fl.Src] &&
			!s.policy.Verdict(rules.Packet{Src: fl.Src, Dst: fl.Dst, Proto: fl.Proto, DstPort: fl.DstPort}, now).Allow
	}
}

func setOf[T comparable](list []T) map[T]bool {
	m := make(map[T]bool, len(list))
	for _, x := range list {
		m[x] = true
	}
	return m
}
