package filter

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"time"

	"vpnd/acl/rules"
	"vpnd/internal/dataplane"
	"vpnd/internal/dataplane/linux/nft"
)

// sameCompile says whether two Rulesets come from one Compile, so that only devices may
// differ. Ruleset.With shares the port ranges of zones that exist.
func sameCompile(a, b *rules.Ruleset) bool {
	return a == b || a != nil && b != nil && firstPorts(a) == firstPorts(b)
}

func firstPorts(r *rules.Ruleset) *rules.Ports {
	for _, ports := range r.Zones() {
		if len(ports) > 0 {
			return &ports[0]
		}
	}
	return nil // nothing is allowed to anybody
}

// place is what the policy says of a device's address.
type place struct{ role, zone uint32 }

func placeOf(p *rules.Ruleset, a netip.Addr) place {
	role, zone, _ := p.Device(a)
	return place{uint32(role), uint32(zone)}
}

// session is a device's session, as one of its addresses sees it.
type session struct {
	until time.Time
	codes []dataplane.Code
}

// chain returns the serial of the code that began the chain of codes that is unbroken at
// freshness d, and when this chain ends; ok is false if it has ended.
func (s session) chain(d time.Duration, now time.Time) (serial uint32, until time.Time, ok bool) {
	n := len(s.codes)
	if n == 0 {
		return 0, time.Time{}, false
	}
	until = s.codes[n-1].At.Add(d)
	if s.until.Before(until) {
		until = s.until
	}
	if !until.After(now) {
		return 0, time.Time{}, false
	}
	i := n - 1
	for i > 0 && s.codes[i].At.Sub(s.codes[i-1].At) < d {
		i--
	}
	return s.codes[i].Serial, until, true
}

// contents are the elements of all sets: set name, then key, then value. The key is that
// of the kernel: concatenated, each field padded to 4 bytes.
type contents map[string]map[string]nft.Value

func (c contents) put(set, key string, v nft.Value) {
	m := c[set]
	if m == nil {
		m = make(map[string]nft.Value)
		c[set] = m
	}
	m[key] = v
}

// device puts the elements of a device's address.
func (c contents) device(a netip.Addr, p place) {
	f := nft.IPOf(a)
	key := string(a.AsSlice())
	// No prefix of Sources or Destinations answers for a device without role or zone: the
	// tunnel's own networks are in none of them.
	if p.role != 0 {
		c.put(roleSet(f), key, nft.Value{Data: p.role << 16})
	}
	if p.zone != 0 {
		c.put(zoneSet(f), key, nft.Value{Data: p.zone})
	}
}

// siblings puts what autogroup:self adds between a device and its user's others.
func (c contents) siblings(p *rules.Ruleset, a netip.Addr, devices map[netip.Addr]place) {
	for _, s := range p.Siblings(a) {
		if _, ok := devices[s]; !ok {
			continue
		}
		for _, pair := range [][2]netip.Addr{{a, s}, {s, a}} {
			if _, zone, ok := p.Device(pair[1]); ok {
				if twin := p.Twin(zone); twin != 0 {
					c.put(selfSet(nft.IPOf(a)), string(pair[0].AsSlice())+string(pair[1].AsSlice()), nft.Value{Data: uint32(twin)})
				}
			}
		}
	}
}

// session puts the elements of a session for one address, at which a device is placed.
func (c contents) session(l layout, a netip.Addr, p place, s session, now time.Time) {
	if !s.until.After(now) {
		return
	}
	f := nft.IPOf(a)
	key := string(a.AsSlice())
	c.put(sessionSet(f), key, nft.Value{Until: s.until})
	for i, d := range l.fresh {
		if serial, until, ok := s.chain(d, now); ok {
			c.put(startSet(f, d), key, nft.Value{Data: serial, Until: until})
			c.put(liveSet(f, d), key+string(nft.Native32(serial)), nft.Value{Until: until})
			if l.labels && p.role != 0 {
				c.put(quickSet(f, d), key+string(nft.Native32(serial))+string(nft.Native32(l.tag.label(p.role, i))), nft.Value{Until: until})
			}
		}
	}
}

// policyPart is what depends on the policy alone.
type policyPart struct {
	contents contents
	fresh    []time.Duration
	off      bool
	levels   []int
	classes  map[uint32]bool // that have a chain
	roles    rules.RoleID    // the highest
	top      rules.ClassID   // the highest
}

func compile(p *rules.Ruleset, now time.Time) policyPart {
	c := contents{}
	out := policyPart{contents: c, classes: make(map[uint32]bool)}
	for _, s := range p.Sources() {
		if s.Role != 0 {
			c.prefix(sourceSet(nft.IPOf(s.Prefix.Addr())), s.Prefix, uint32(s.Role)<<16)
		}
	}
	for _, d := range p.Destinations() {
		f := nft.IPOf(d.Prefix.Addr())
		if d.Prefix.IsSingleIP() && d.Zone != 0 {
			c.put(zoneSet(f), string(d.Prefix.Addr().AsSlice()), nft.Value{Data: uint32(d.Zone)})
		} else if d.Zone != 0 {
			c.prefix(zoneNetSet(f), d.Prefix, uint32(d.Zone))
		}
	}
	for zone, ports := range p.Zones() {
		out.zone(zone, ports)
	}
	out.allow(p.Allows(now))
	return out
}

// zone puts the ports of a zone.
func (p *policyPart) zone(zone rules.ZoneID, ports []rules.Ports) {
	for len(ports) > 0 {
		n := slices.IndexFunc(ports, func(x rules.Ports) bool { return x.Proto != ports[0].Proto })
		if n < 0 {
			n = len(ports)
		}
		for _, b := range blocks(ports[:n]) {
			p.classes[uint32(b.class)] = true
			p.top = max(p.top, b.class)
			p.contents.put(classSet(b.bits), classKey(zone, ports[0].Proto, b), nft.Value{Data: uint32(b.class)})
			if !slices.Contains(p.levels, b.bits) {
				p.levels = append(slices.Clone(p.levels), b.bits)
				slices.Sort(p.levels)
			}
		}
		ports = ports[n:]
	}
}

// allow puts what is allowed.
func (p *policyPart) allow(list []rules.Allow) {
	for _, a := range list {
		key := string(nft.Native32(uint32(a.Role)<<16 | uint32(a.Class)))
		p.roles, p.top = max(p.roles, a.Role), max(p.top, a.Class)
		set := allowSet(a.MFA)
		if a.MFA != 0 && !a.Until.IsZero() {
			set = timedSet(a.MFA)
		}
		if old, ok := p.contents[set][key]; !ok || longer(a.Until, old.Until) {
			p.contents.put(set, key, nft.Value{Until: a.Until})
		}
		if a.MFA == 0 {
			p.off = true
		} else if !slices.Contains(p.fresh, a.MFA) {
			p.fresh = append(slices.Clone(p.fresh), a.MFA)
			slices.Sort(p.fresh)
			slices.Reverse(p.fresh)
		}
	}
}

// growth is what the Ruleset now, which was derived from before, says more; ok is false
// if it was not derived from that.
func growth(before, now *rules.Ruleset, at time.Time) (more policyPart, ok bool) {
	zones, allows, ok := now.Growth(before, at)
	more = policyPart{contents: contents{}, classes: make(map[uint32]bool)}
	for _, z := range zones {
		more.zone(z, now.Ports(z))
	}
	more.allow(allows)
	return more, ok
}

// add adds to p what has grown. p's classes may be the table's own, so they are copied.
func (p *policyPart) add(more policyPart) {
	for set, elems := range more.contents {
		for k, v := range elems {
			if old, ok := p.contents[set][k]; !ok || longer(v.Until, old.Until) {
				p.contents.put(set, k, v)
			}
		}
	}
	if len(more.classes) > 0 {
		p.classes = maps.Clone(p.classes)
		maps.Copy(p.classes, more.classes)
	}
	p.roles, p.top = max(p.roles, more.roles), max(p.top, more.top)
	p.fresh, p.off, p.levels = joined(*p, more)
}

// joined are the freshnesses and the block sizes of two parts, as a layout has them.
func joined(a, b policyPart) (fresh []time.Duration, off bool, levels []int) {
	fresh = slices.Compact(slices.Sorted(slices.Values(slices.Concat(a.fresh, b.fresh))))
	slices.Reverse(fresh)
	levels = slices.Compact(slices.Sorted(slices.Values(slices.Concat(a.levels, b.levels))))
	return fresh, a.off || b.off, levels
}

// most is how many roles, and how many classes, the filter can tell apart: both share
// the 32 bits of a packet's priority.
const most = 1<<16 - 1

// check refuses a policy that the table cannot hold.
func (p policyPart) check() error {
	if p.roles > most || p.top > most {
		return fmt.Errorf("the policy tells %d kinds of sources and %d kinds of destinations apart; the packet filter can hold %d of each: merge grants", p.roles, p.top, most)
	}
	return nil
}

// longer says whether a ends after b; the zero time never ends.
func longer(a, b time.Time) bool {
	if b.IsZero() {
		return false
	}
	return a.IsZero() || a.After(b)
}

// prefix puts the two ends of a prefix into an interval map.
func (c contents) prefix(set string, p netip.Prefix, data uint32) {
	first := p.Masked().Addr()
	c.put(set, string(first.AsSlice())+nft.IntervalStart, nft.Value{Data: data})
	last := first.AsSlice()
	for i := p.Bits(); i < len(last)*8; i++ {
		last[i/8] |= 0x80 >> (i % 8)
	}
	end, _ := netip.AddrFromSlice(last)
	if next := end.Next(); next.IsValid() {
		c.put(set, string(next.AsSlice())+nft.IntervalEnd, nft.Value{})
	}
}

// merge puts all of o into c, which shares the sets that it had nothing of.
func (c contents) merge(o contents) {
	for set, elems := range o {
		if c[set] == nil {
			c[set] = elems
			continue
		}
		for k, v := range elems {
			c.put(set, k, v)
		}
	}
}

// missing puts into out what c has and o has not, or has otherwise.
func (c contents) missing(o, out contents) {
	for set, elems := range c {
		other := o[set]
		for k, v := range elems {
			if w, ok := other[k]; !ok || !w.Same(v) {
				out.put(set, k, v)
			}
		}
	}
}
