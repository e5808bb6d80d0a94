package rules

import (
	"net/netip"
	"slices"

	"vpnd/acl/internal/bitset"
)

// With returns the Ruleset after devices were added or changed (put) and removed
// (by address). It costs the same however many devices there are. An address in both
// lists is removed first.
func (r *Ruleset) With(put []Subject, remove []netip.Addr) *Ruleset {
	n := *r.c
	b := &builder{pr: n.program, t: n.tables, shared: true, shape: n.shape,
		scratch: bitset.NewScratch(len(n.rules)), sweeper: bitset.NewScratch(len(n.rules))}
	for _, a := range remove {
		n.drop(a.Unmap())
	}
	for _, s := range put {
		s.Addrs = slices.Clone(s.Addrs)
		for _, a := range s.Addrs {
			a = a.Unmap()
			n.drop(a) // it may have been another's, or of another user
			d := &Enrolled{Subject: &s}
			n.judge(b, d, a)
			n.devices = n.devices.InsertPersist(netip.PrefixFrom(a, a.BitLen()), d)
			if len(n.self) > 0 && d.User != "" {
				list, _ := n.owners.Get([]byte(d.User))
				n.owners = n.owners.With(d.User, append(slices.Clone(list), a))
			}
		}
	}
	n.tables, n.shape = b.t, b.shape
	return &Ruleset{&n}
}

// drop takes one address out of a compiled that nobody else sees yet.
func (n *compiled) drop(a netip.Addr) {
	d, ok := n.devices.Lookup(a)
	if !ok {
		return
	}
	n.devices = n.devices.DeletePersist(netip.PrefixFrom(a, a.BitLen()))
	if len(n.self) > 0 && d.User != "" {
		list, _ := n.owners.Get([]byte(d.User))
		n.owners = n.owners.With(d.User, slices.DeleteFunc(slices.Clone(list), func(x netip.Addr) bool { return x == a }))
	}
}

// Twin is the zone of an address of zone z for packets from another device of the same
// user, where autogroup:self adds to what others reach; 0 where it adds nothing.
func (r *Ruleset) Twin(z ZoneID) ZoneID {
	if int(z) >= len(r.c.zones) {
		return 0
	}
	return r.c.zones[z].twin
}

// Siblings are the other addresses, of the same family, of the untagged devices of the
// user of the device at a, sorted. Between them a destination's zone is Twin of its
// zone. There are none unless the policy uses autogroup:self.
func (r *Ruleset) Siblings(a netip.Addr) []netip.Addr {
	d, ok := r.c.devices.Lookup(a.Unmap())
	if !ok || d.User == "" || len(r.c.self) == 0 {
		return nil
	}
	list, _ := r.c.owners.Get([]byte(d.User))
	var out []netip.Addr
	for _, x := range list {
		if x != a.Unmap() && x.Is4() == a.Unmap().Is4() {
			out = append(out, x)
		}
	}
	slices.SortFunc(out, netip.Addr.Compare)
	return out
}
