package rules

import (
	"net/netip"
	"sort"
	"time"

	"vpnd/acl/internal/bitset"
)

// circumstances are what the conditions of grants are held against.
type circumstances struct {
	now            time.Time
	srcDev, dstDev bool // the ends that are devices
	src, dst       Session
}

// Verdict says whether p may pass at now. It does not allocate.
func (r *Ruleset) Verdict(p Packet, now time.Time) Verdict {
	c := r.c
	role, zone, at := c.ends(p.Src.Unmap(), p.Dst.Unmap())
	at.now, at.src, at.dst = now, p.SrcSession, p.DstSession
	class := c.zones[zone].class(p.Proto, p.DstPort)
	return c.decide(c.roles[role], &c.classes[class], &at)
}

// ends finds the role of a packet's source and the zone of its destination.
func (c *compiled) ends(src, dst netip.Addr) (role RoleID, zone ZoneID, at circumstances) {
	s, srcDev := c.devices.Lookup(src)
	d, dstDev := c.devices.Lookup(dst)
	if srcDev {
		role = s.Role
	} else {
		role, _ = c.src.Lookup(src)
	}
	if dstDev {
		zone = d.Zone
		if srcDev && src != dst && s.User != "" && s.User == d.User {
			if twin := c.zones[zone].twin; twin != 0 {
				zone = twin
			}
		}
	} else {
		zone, _ = c.dst.Lookup(dst)
	}
	return role, zone, circumstances{srcDev: srcDev, dstDev: dstDev}
}

// class finds the class of a port.
func (z *zone) class(proto uint8, port uint16) ClassID {
	i := sort.Search(len(z.ports), func(i int) bool {
		x := &z.ports[i]
		return x.Proto > proto || x.Proto == proto && x.Last >= port
	})
	if i < len(z.ports) && z.ports[i].Proto == proto && z.ports[i].First <= port {
		return z.ports[i].Class
	}
	return 0
}

// decide asks every condition under which the role may do what the class says, and
// takes the best answer. Rules of one condition get one answer, so the first speaks.
func (c *compiled) decide(role bitset.Set, x *class, at *circumstances) Verdict {
	best := Verdict{Reason: NoGrant, Grant: -1}
	for i := range x.conds {
		n, ok := bitset.First(role, x.conds[i].set)
		if !ok {
			continue
		}
		v := c.conds[x.conds[i].cond].hold(at, c.options.Session)
		v.Grant = c.rules[n].Grant
		if v.Better(best) {
			best = v
		}
	}
	return best
}

// hold tells whether the condition holds.
func (k *Condition) hold(at *circumstances, session time.Duration) Verdict {
	v := Verdict{Allow: true}
	if open, until := k.time(at.now); !open {
		return Verdict{Reason: OutsideTime, Until: until}
	} else {
		v.Until = until
	}
	if k.mfa == 0 {
		return v
	}
	// The source's code counts. A resource has none: then the code of the device that
	// it talks to counts.
	s := at.src
	if !at.srcDev {
		s = at.dst
	}
	switch {
	case !at.srcDev && !at.dstDev:
		return Verdict{Reason: NoSession}
	case !s.Until.After(at.now) && at.srcDev:
		return Verdict{Reason: NoSession}
	case !s.Until.After(at.now):
		return Verdict{Reason: PeerOffline}
	}
	v.Until = sooner(v.Until, s.Until)
	if k.mfa < session {
		end := s.Code.Add(k.mfa)
		if !end.After(at.now) {
			return Verdict{Reason: StaleCode}
		}
		v.Until = sooner(v.Until, end)
	}
	if at.srcDev && at.dstDev {
		if !at.dst.Until.After(at.now) {
			return Verdict{Reason: PeerOffline}
		}
		v.Until = sooner(v.Until, at.dst.Until)
	}
	return v
}

// time tells whether "hours" and "expires" hold at t, and when that changes; zero if
// it never does.
func (k *Condition) time(t time.Time) (open bool, until time.Time) {
	if !k.expires.IsZero() && !t.Before(k.expires) {
		return false, time.Time{}
	}
	if k.hours == nil {
		return true, k.expires
	}
	open, until = k.hours.Change(t)
	if open {
		until = sooner(until, k.expires)
	} else if !k.expires.IsZero() && !until.Before(k.expires) {
		until = time.Time{} // it ends before the hours begin again
	}
	return open, until
}

// sooner is the earlier of two instants, of which zero is never.
func sooner(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

// nearness orders the reasons by how near they are to allowing.
var nearness = [...]uint8{Allowed: 5, PeerOffline: 4, StaleCode: 3, NoSession: 2, OutsideTime: 1, NoGrant: 0}

// Better tells whether a is a better answer than b.
func (a Verdict) Better(b Verdict) bool {
	if x, y := nearness[a.Reason], nearness[b.Reason]; x != y {
		return x > y
	}
	if !a.Until.Equal(b.Until) {
		if a.Reason == OutsideTime { // the sooner it begins, the better
			return !a.Until.IsZero() && (b.Until.IsZero() || a.Until.Before(b.Until))
		}
		return a.Until.IsZero() || !b.Until.IsZero() && a.Until.After(b.Until)
	}
	return a.Grant < b.Grant
}
