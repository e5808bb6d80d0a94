package rules

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/gaissmai/bart"

	"vpnd/acl/internal/bitset"
	"vpnd/acl/internal/layered"
	"vpnd/acl/internal/ranges"
	"vpnd/acl/language"
)

// compiled is what a Ruleset is made of.
type compiled struct {
	*program
	tables
	warnings language.ErrorList
	shape    uint64
	made     int // roles and zones that Compile has made
	devices  *bart.Table[*Enrolled]
	owners   layered.Map[[]netip.Addr] // a user's untagged devices; kept only for autogroup:self

	// For addresses that are not devices'.
	src          *bart.Table[RoleID]
	dst          *bart.Table[ZoneID]
	sources      []PrefixRole
	destinations []PrefixZone
	// For those that are: prefix -> index into srcSets and dstSets.
	srcIn, dstIn *bart.Table[uint32]
}

// Enrolled is one address of a subject.
type Enrolled struct {
	Subject *Subject
	User    string // in lower case; "" of a tagged device, which has left its user
	Role    RoleID
	Zone    ZoneID
}

// Compile gives p its meaning for these devices. Policies that pass a limit are refused
// with an ErrorList. It does not run the policy's tests: review.Check does.
func Compile(p *language.Policy, o Options, subjects []Subject) (*Ruleset, error) {
	if o.Session <= 0 {
		return nil, fmt.Errorf("compiling the policy: the session length is %s, it must be more than nothing", o.Session)
	}
	if o.Services == nil {
		o.Services = provisional(p, o.Network)
	}
	f := p.Faults()
	pr := newProgram(p, o, f)
	if list := f.Sorted(); list.Fatal() {
		return nil, append(p.Warnings(), list...)
	}
	if list := pr.overspent(); list != nil {
		return nil, list
	}
	b := newBuilder(pr)
	c := &compiled{program: pr, devices: &bart.Table[*Enrolled]{}}
	c.srcIn, c.dstIn = tableOf(pr.srcPrefixes), tableOf(pr.dstPrefixes)

	srcPlaced := make([]mapped[RoleID], len(pr.srcPrefixes))
	for i, x := range pr.srcPrefixes {
		b.scratch.Clear()
		b.scratch.Or(pr.srcSets[x.value])
		srcPlaced[i] = mapped[RoleID]{x.prefix, b.role(b.scratch)}
	}
	dstPlaced := make([]mapped[ZoneID], len(pr.dstPrefixes))
	for i, x := range pr.dstPrefixes {
		b.scratch.Clear()
		b.scratch.Or(pr.dstSets[x.value])
		dstPlaced[i] = mapped[ZoneID]{x.prefix, b.zone(b.scratch, false)}
	}
	services := c.placeServices(b)
	devices := c.enrol(b, subjects)
	if list := pr.overspent(); list != nil {
		return nil, list
	}
	c.number(b, devices, srcPlaced, dstPlaced, services)

	srcPlaced = outside(pr, srcPlaced, c.srcIn, func(n uint32) RoleID { return srcPlaced[n].value })
	dstPlaced = outside(pr, dstPlaced, c.dstIn, func(n uint32) ZoneID { return dstPlaced[n].value })
	dstPlaced = mergePlaced(dstPlaced, services)
	c.src, c.dst = tableOf(srcPlaced), tableOf(dstPlaced)
	flatten(srcPlaced, func(x netip.Prefix, v RoleID) bool {
		c.sources = append(c.sources, PrefixRole{x, v})
		return !limited(p, o) || len(c.sources) <= MaxPrefixes
	})
	flatten(dstPlaced, func(x netip.Prefix, v ZoneID) bool {
		c.destinations = append(c.destinations, PrefixZone{x, v})
		return !limited(p, o) || len(c.destinations) <= MaxPrefixes
	})
	if limited(p, o) {
		if list := c.passes(); list != nil {
			return nil, list
		}
	}
	if !o.Stored {
		checkNames(p, o, subjects, f)
	}
	c.shape, c.made = c.firstShape(), len(c.roles)+len(c.zones)
	c.warnings = append(p.Warnings(), f.Sorted()...)
	if c.warnings.Fatal() {
		return nil, c.warnings
	}
	return &Ruleset{c}, nil
}

// checkNames looks for names that nobody has. Where no users are known at all, as in a
// check without a daemon, nothing is said.
func checkNames(p *language.Policy, o Options, subjects []Subject, f *language.Faults) {
	if o.Users == nil && len(subjects) == 0 {
		return
	}
	known := map[string]bool{}
	for _, u := range o.Users {
		known[language.Fold(u)] = true
	}
	for _, s := range subjects {
		if s.User != "" {
			known[language.Fold(s.User)] = true
		}
	}
	p.CheckNames(f, known, o.Users != nil)
}

// Warnings are what is doubtful about the policy though it means something.
func (r *Ruleset) Warnings() language.ErrorList { return slices.Clone(r.c.warnings) }

func tableOf[V comparable](list []mapped[V]) *bart.Table[V] {
	t := &bart.Table[V]{}
	for _, x := range list {
		t.Insert(x.prefix, x.value)
	}
	return t
}

// enrol gives every address of every subject a role and a zone.
func (c *compiled) enrol(b *builder, subjects []Subject) []*Enrolled {
	type where struct {
		who      string
		src, dst uint32 // 1 + index of the prefix set; 0: none
	}
	known := map[where]*Enrolled{}
	var list []*Enrolled
	for i := range subjects {
		s := subjects[i]
		s.Addrs = slices.Clone(s.Addrs)
		who := language.Fold(s.User)
		if len(s.Tags) > 0 {
			who = strings.Join(s.Tags, ",") // no user's name has a colon
		}
		for _, a := range s.Addrs {
			w := where{who: who}
			if n, ok := c.srcIn.Lookup(a.Unmap()); ok {
				w.src = n + 1
			}
			if n, ok := c.dstIn.Lookup(a.Unmap()); ok {
				w.dst = n + 1
			}
			d := &Enrolled{Subject: &s}
			if k := known[w]; k != nil {
				d.User, d.Role, d.Zone = k.User, k.Role, k.Zone
			} else {
				if c.judge(b, d, a); b.over {
					return nil
				}
				known[w] = d
			}
			list = append(list, d)
		}
		if len(c.self) > 0 && len(s.Tags) == 0 {
			if c.owners.Base == nil {
				c.owners.Base = map[string][]netip.Addr{}
			}
			for _, a := range s.Addrs {
				c.owners.Base[who] = append(c.owners.Base[who], a.Unmap())
			}
		}
	}
	return list
}

// judge finds the role and the zone of a device at an address.
func (c *compiled) judge(b *builder, d *Enrolled, a netip.Addr) {
	s := d.Subject
	a = a.Unmap()
	d.User = ""
	if len(s.Tags) == 0 {
		d.User = language.Fold(s.User)
	}
	b.scratch.Clear()
	c.selected(c.program.src, s, b.scratch)
	if n, ok := c.srcIn.Lookup(a); ok {
		b.scratch.Or(c.srcSets[n])
	}
	d.Role = b.role(b.scratch)
	b.scratch.Clear()
	c.selected(c.program.dst, s, b.scratch)
	if n, ok := c.dstIn.Lookup(a); ok {
		b.scratch.Or(c.dstSets[n])
	}
	d.Zone = b.zone(b.scratch, d.User != "")
}

// selected adds the rules whose selectors select a subject.
func (pr *program) selected(by map[deviceKey][]uint32, s *Subject, into bitset.Scratch) {
	into.AddAll(by[deviceKey{kind: language.SelectAny}])
	if len(s.Tags) > 0 {
		into.AddAll(by[deviceKey{kind: language.SelectTagged}])
		for _, t := range s.Tags {
			into.AddAll(by[deviceKey{language.SelectTag, t}])
		}
		return
	}
	user := language.Fold(s.User)
	into.AddAll(by[deviceKey{kind: language.SelectMembers}])
	into.AddAll(by[deviceKey{language.SelectUser, user}])
	for _, g := range pr.policy.GroupsOfLower(user) {
		into.AddAll(by[deviceKey{language.SelectGroup, g}])
	}
}

// number sorts what the builder met, and numbers it so that the order of devices and
// of the text do not show.
func (c *compiled) number(b *builder, devices []*Enrolled, src []mapped[RoleID], dst ...[]mapped[ZoneID]) {
	roles, newRole := renumber(b.t.roles, func(s bitset.Set) bitset.Set { return s })
	zones, newZone := renumber(b.t.zones, func(z zone) bitset.Set { return z.set })
	classes, newClass := renumber(b.t.classes, func(x class) bitset.Set { return x.set })
	c.roles, c.zones, c.classes = roles, zones, classes
	for i := range c.zones {
		z := &c.zones[i]
		z.twin = ZoneID(newZone[z.twin])
		for j := range z.ports {
			z.ports[j].Class = ClassID(newClass[z.ports[j].Class])
		}
	}
	for k, v := range b.t.roleIDs.Base {
		b.t.roleIDs.Base[k] = RoleID(newRole[v])
	}
	for k, v := range b.t.zoneIDs.Base {
		b.t.zoneIDs.Base[k] = ZoneID(newZone[v])
	}
	for k, v := range b.t.classIDs.Base {
		b.t.classIDs.Base[k] = ClassID(newClass[v])
	}
	c.roleIDs, c.zoneIDs, c.classIDs = b.t.roleIDs, b.t.zoneIDs, b.t.classIDs
	for i := range src {
		src[i].value = RoleID(newRole[src[i].value])
	}
	for _, list := range dst {
		for i := range list {
			list[i].value = ZoneID(newZone[list[i].value])
		}
	}
	for _, d := range devices {
		d.Role, d.Zone = RoleID(newRole[d.Role]), ZoneID(newZone[d.Zone])
	}
	for i := 0; i < len(devices); { // the addresses of one subject follow each other
		for _, a := range devices[i].Subject.Addrs {
			a = a.Unmap()
			c.devices.Insert(netip.PrefixFrom(a, a.BitLen()), devices[i])
			i++
		}
	}
}

// outside takes the tunnel's prefixes away from sorted placed prefixes, but for the
// gateway's own addresses: whoever is not enrolled is nobody there.
func outside[V comparable](pr *program, list []mapped[V], in *bart.Table[uint32], value func(uint32) V) []mapped[V] {
	var none V
	own := map[netip.Prefix]V{}
	for _, n := range pr.network {
		own[n] = none
	}
	for _, x := range list {
		if !slices.ContainsFunc(pr.network, func(n netip.Prefix) bool {
			return n.Contains(x.prefix.Addr()) && n.Bits() <= x.prefix.Bits()
		}) {
			own[x.prefix] = x.value
		}
	}
	for _, a := range pr.options.Gateway {
		a = a.Unmap()
		if n, ok := in.Lookup(a); ok {
			own[netip.PrefixFrom(a, a.BitLen())] = value(n)
		}
	}
	out := make([]mapped[V], 0, len(own))
	for p, v := range own {
		out = append(out, mapped[V]{p, v})
	}
	slices.SortFunc(out, func(a, b mapped[V]) int { return ranges.ComparePrefixes(a.prefix, b.prefix) })
	return out
}

// firstShape stands for all that the enforceable form of a compiled policy says, but
// for its devices.
func (c *compiled) firstShape() uint64 {
	var b []byte
	for _, x := range c.conds {
		b = append(append(b, fmt.Sprint(x.mfa, x.hours, x.expires)...), 0)
	}
	for _, r := range c.rules {
		b = binary.BigEndian.AppendUint32(b, r.cond)
		b = append(append(b, language.SpansText(r.Spans)...), 0)
	}
	for _, s := range c.roles {
		b = s.AppendKey(append(b, 'r'))
	}
	for _, z := range c.zones {
		b = z.set.AppendKey(append(b, 'z'))
		b = binary.BigEndian.AppendUint32(b, uint32(z.twin))
	}
	for _, x := range c.sources {
		b = append(append(b, 's'), x.Prefix.String()...)
		b = binary.BigEndian.AppendUint32(b, uint32(x.Role))
	}
	for _, x := range c.destinations {
		b = append(append(b, 'd'), x.Prefix.String()...)
		b = binary.BigEndian.AppendUint32(b, uint32(x.Zone))
	}
	return digest(0, 'p', b)
}
