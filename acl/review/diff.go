package review

import (
	"maps"
	"net/netip"
	"slices"

	"vpnd/acl/internal/bitset"
	"vpnd/acl/internal/ranges"
	"vpnd/acl/language"
	"vpnd/acl/rules"
)

// Place is one end of a Difference: a person with all devices, a device, a host, or a
// piece of the address space.
type Place struct {
	Name     string // "bob", "bob/phone", "db", "10.1.2.0/25"
	Prefixes []netip.Prefix
}

// Difference is something that sources may do under one policy and not, or under other
// conditions, under another. Before and After are the conditions of the grants that
// allow it: "" if none does, else like "mfa 15m" or "always" (with a live session).
type Difference struct {
	Sources      []Place
	Destinations []Place
	Proto        uint8
	First, Last  uint16
	Before       string
	After        string
}

// Gain and Loss tell the kinds of a Difference; one that is neither changes conditions.
func (d Difference) Gain() bool { return d.Before == "" }
func (d Difference) Loss() bool { return d.After == "" }

// Ports is the protocol and ports as a policy writes them: "tcp:443".
func (d Difference) Ports() string { return language.SpanText(d.Proto, d.First, d.Last) }

// Diff tells what changes between two Rulesets: for every source, every destination and
// every port, also inside of prefixes and ranges. Gains and losses are exact; that
// conditions differ is judged by how they are written.
func Diff(before, after *rules.Ruleset) []Difference {
	d := differ{a: before, b: after, lists: newPlaceLists()}
	d.name()
	d.number()
	var out []Difference
	for _, is4 := range []bool{true, false} {
		sources, destinations := d.sources(is4), d.destinations(is4)
		for _, s := range sources {
			for _, t := range destinations {
				list := d.compare(s, t, d.a.RulesTo(rules.ZoneID(t.a)), d.b.RulesTo(rules.ZoneID(t.b)))
				if len(list) == 0 {
					continue
				}
				for _, pair := range d.split(s, t) {
					out = d.attach(out, list, pair[0], pair[1])
				}
			}
		}
		out = d.own(out, is4)
	}
	return d.merge(out)
}

// differ compares two Rulesets.
type differ struct {
	a, b    *rules.Ruleset
	names   map[netip.Prefix]string
	says    [2][]int // of every rule before and after: a number of what it grants
	numbers []int    // scratch
	lists   placeLists
	devices map[family]int // how many addresses a user's untagged devices have
}

// family is a user's addresses of IPv4 or of IPv6.
type family struct {
	user string
	is4  bool
}

// piece is addresses with what they are numbered before and after.
type piece struct {
	a, b     uint32
	device   bool
	prefixes []netip.Prefix
}

func (d *differ) sources(is4 bool) []piece {
	var cuts []netip.Prefix
	for _, r := range []*rules.Ruleset{d.a, d.b} {
		for _, x := range r.Sources() {
			cuts = append(cuts, x.Prefix)
		}
	}
	return d.pieces(is4, cuts, func(r *rules.Ruleset, a netip.Addr) uint32 { return uint32(r.RoleAt(a)) })
}

func (d *differ) destinations(is4 bool) []piece {
	var cuts []netip.Prefix
	for _, r := range []*rules.Ruleset{d.a, d.b} {
		for _, x := range r.Destinations() {
			cuts = append(cuts, x.Prefix)
		}
	}
	return d.pieces(is4, cuts, func(r *rules.Ruleset, a netip.Addr) uint32 { return uint32(r.ZoneAt(a)) })
}

// pieces splits the address space of a family where anything is cut, and groups what is
// numbered alike before and after. Numbers that are 0 both times are left out.
func (d *differ) pieces(is4 bool, cuts []netip.Prefix, number func(*rules.Ruleset, netip.Addr) uint32) []piece {
	type bound struct {
		at   ranges.Addr
		more int // prefixes that begin here, less those that have ended before
	}
	type group struct {
		a, b     uint32
		Enrolled bool // devices give codes, so they are told from the rest
	}
	groups := map[group][]netip.Prefix{}
	devices := d.addresses()
	var ends []bound
	for p := range devices {
		if p.Addr().Is4() == is4 {
			g := group{number(d.a, p.Addr()), number(d.b, p.Addr()), true}
			groups[g] = append(groups[g], p)
			cuts = append(cuts, p)
		}
	}
	top := ranges.HostMask(128)
	if is4 {
		top = ranges.HostMask(32)
	}
	for _, p := range cuts {
		if p.Addr().Is4() == is4 {
			r := ranges.Of(p)
			ends = append(ends, bound{r.First, 1})
			if r.Last != top {
				ends = append(ends, bound{r.Last.Next(), -1})
			}
		}
	}
	slices.SortFunc(ends, func(x, y bound) int { return x.at.Compare(y.at) })
	open := 0
	for i := 0; i < len(ends); {
		at := ends[i].at
		for ; i < len(ends) && ends[i].at == at; i++ {
			open += ends[i].more
		}
		last := top
		if i < len(ends) {
			last = ends[i].at.Previous()
		}
		first := at.Netip(is4)
		if open == 0 || devices[netip.PrefixFrom(first, first.BitLen())] {
			continue
		}
		g := group{number(d.a, first), number(d.b, first), false}
		groups[g] = ranges.AppendPrefixes(groups[g], ranges.Range{First: at, Last: last}, is4)
	}
	var out []piece
	for g, list := range groups {
		if g.a != 0 || g.b != 0 {
			slices.SortFunc(list, ranges.ComparePrefixes)
			out = append(out, piece{g.a, g.b, g.Enrolled, list})
		}
	}
	slices.SortFunc(out, func(x, y piece) int { return ranges.ComparePrefixes(x.prefixes[0], y.prefixes[0]) })
	return out
}

// attach appends differences with their ends.
func (d *differ) attach(out, list []Difference, s, t piece) []Difference {
	if len(s.prefixes) == 0 || len(t.prefixes) == 0 {
		return out
	}
	if s.device && len(s.prefixes) == 1 && slices.Equal(s.prefixes, t.prefixes) {
		return out // nobody is his own peer
	}
	src, dst := d.lists.of(s.prefixes, d.places), d.lists.of(t.prefixes, d.places)
	for _, x := range list {
		x.Sources, x.Destinations = src, dst
		out = append(out, x)
	}
	return out
}

// split takes the pairs of devices of one user away, which own looks after.
func (d *differ) split(s, t piece) [][2]piece {
	if len(d.a.RulesToSelf())+len(d.b.RulesToSelf()) == 0 || !s.device || !t.device {
		return [][2]piece{{s, t}}
	}
	toOf := map[string]bool{}
	for _, p := range t.prefixes {
		toOf[d.userOf(p)] = true
	}
	rest := s
	rest.prefixes = nil
	fromOf := map[string][]netip.Prefix{}
	for _, p := range s.prefixes {
		if u := d.userOf(p); u != "" && toOf[u] {
			fromOf[u] = append(fromOf[u], p)
		} else {
			rest.prefixes = append(rest.prefixes, p)
		}
	}
	out := [][2]piece{{rest, t}}
	for _, u := range slices.Sorted(maps.Keys(fromOf)) {
		from, to := s, t
		from.prefixes = fromOf[u]
		to.prefixes = slices.DeleteFunc(slices.Clone(t.prefixes), func(p netip.Prefix) bool { return d.userOf(p) == u })
		out = append(out, [2]piece{from, to})
	}
	return out
}

// own compares what devices of one user reach of each other, where autogroup:self plays
// a part.
func (d *differ) own(out []Difference, is4 bool) []Difference {
	if len(d.a.RulesToSelf())+len(d.b.RulesToSelf()) == 0 {
		return out
	}
	byUser := map[string][]netip.Prefix{}
	for p := range d.addresses() {
		if u := d.userOf(p); u != "" && p.Addr().Is4() == is4 {
			byUser[u] = append(byUser[u], p)
		}
	}
	twin := func(r *rules.Ruleset, p netip.Prefix) bitset.Set {
		x := r.Enrolled(p.Addr())
		if x == nil {
			return bitset.Set{}
		}
		if t := r.Twin(x.Zone); t != 0 {
			return r.RulesTo(t)
		}
		return r.RulesTo(x.Zone)
	}
	role := func(r *rules.Ruleset, p netip.Prefix) uint32 {
		x := r.Enrolled(p.Addr())
		if x == nil {
			return 0
		}
		return uint32(x.Role)
	}
	for _, list := range byUser {
		slices.SortFunc(list, ranges.ComparePrefixes)
		for _, s := range list {
			for _, t := range list {
				if s == t {
					continue
				}
				from := piece{role(d.a, s), role(d.b, s), true, []netip.Prefix{s}}
				to := piece{device: true, prefixes: []netip.Prefix{t}}
				out = d.attach(out, d.compare(from, to, twin(d.a, t), twin(d.b, t)), from, to)
			}
		}
	}
	return out
}
