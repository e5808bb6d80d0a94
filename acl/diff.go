package acl

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"
	"strings"
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
func (d Difference) Ports() string { return spanText(d.Proto, d.First, d.Last) }

// Diff tells what changes between two Rulesets: for every source, every destination and
// every port, also inside of prefixes and ranges. Gains and losses are exact; that
// conditions differ is judged by how they are written.
func Diff(before, after *Ruleset) []Difference {
	d := differ{a: before.c, b: after.c, lists: newPlaceLists()}
	d.name()
	d.number()
	var out []Difference
	for _, is4 := range []bool{true, false} {
		sources, destinations := d.sources(is4), d.destinations(is4)
		for _, s := range sources {
			for _, t := range destinations {
				list := d.compare(s, t, d.a.zones[t.a].set, d.b.zones[t.b].set)
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

// differ compares two compiled policies.
type differ struct {
	a, b    *compiled
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

// name finds names for prefixes: hosts', devices'.
func (d *differ) name() {
	d.names, d.devices = map[netip.Prefix]string{}, map[family]int{}
	for _, c := range []*compiled{d.a, d.b} {
		for name, h := range c.policy.hosts {
			if old := d.names[h.prefix]; old == "" || name < old {
				d.names[h.prefix] = name
			}
		}
	}
	for _, c := range []*compiled{d.a, d.b} {
		for _, a := range c.options.Gateway {
			d.names[netip.PrefixFrom(a.Unmap(), a.Unmap().BitLen())] = appHost
		}
		for p, x := range c.devices.All() {
			d.names[p] = x.subject.Device
		}
	}
	for p := range d.addresses() {
		if u := d.userOf(p); u != "" {
			d.devices[family{u, p.Addr().Is4()}]++
		}
	}
}

// addresses are those of all devices, of before and after.
func (d *differ) addresses() map[netip.Prefix]bool {
	all := map[netip.Prefix]bool{}
	for _, c := range []*compiled{d.a, d.b} {
		for p := range c.devices.All() {
			all[p] = true
		}
	}
	return all
}

// userOf is the user of an untagged device that is the same before and after.
func (d *differ) userOf(p netip.Prefix) string {
	x, ok1 := d.a.devices.Lookup(p.Addr())
	y, ok2 := d.b.devices.Lookup(p.Addr())
	switch {
	case ok1 && ok2 && x.user == y.user, ok1 && !ok2:
		return x.user
	case ok2 && !ok1:
		return y.user
	}
	return ""
}

func (d *differ) sources(is4 bool) []piece {
	role := func(c *compiled, a netip.Addr) uint32 {
		if x, ok := c.devices.Lookup(a); ok {
			return uint32(x.role)
		}
		id, _ := c.src.Lookup(a)
		return uint32(id)
	}
	var cuts []netip.Prefix
	for _, c := range []*compiled{d.a, d.b} {
		for _, x := range c.sources {
			cuts = append(cuts, x.Prefix)
		}
	}
	return d.pieces(is4, cuts, role)
}

func (d *differ) destinations(is4 bool) []piece {
	zone := func(c *compiled, a netip.Addr) uint32 {
		if x, ok := c.devices.Lookup(a); ok {
			return uint32(x.zone)
		}
		id, _ := c.dst.Lookup(a)
		return uint32(id)
	}
	var cuts []netip.Prefix
	for _, c := range []*compiled{d.a, d.b} {
		for _, x := range c.destinations {
			cuts = append(cuts, x.Prefix)
		}
	}
	return d.pieces(is4, cuts, zone)
}

// pieces splits the address space of a family where anything is cut, and groups what is
// numbered alike before and after. Numbers that are 0 both times are left out.
func (d *differ) pieces(is4 bool, cuts []netip.Prefix, number func(*compiled, netip.Addr) uint32) []piece {
	type bound struct {
		at   addr
		more int // prefixes that begin here, less those that have ended before
	}
	type group struct {
		a, b   uint32
		device bool // devices give codes, so they are told from the rest
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
	top := hostMask(128)
	if is4 {
		top = hostMask(32)
	}
	for _, p := range cuts {
		if p.Addr().Is4() == is4 {
			r := rangeOf(p)
			ends = append(ends, bound{r.first, 1})
			if r.last != top {
				ends = append(ends, bound{r.last.next(), -1})
			}
		}
	}
	slices.SortFunc(ends, func(x, y bound) int { return x.at.compare(y.at) })
	open := 0
	for i := 0; i < len(ends); {
		at := ends[i].at
		for ; i < len(ends) && ends[i].at == at; i++ {
			open += ends[i].more
		}
		last := top
		if i < len(ends) {
			last = ends[i].at.previous()
		}
		first := at.netip(is4)
		if open == 0 || devices[netip.PrefixFrom(first, first.BitLen())] {
			continue
		}
		g := group{number(d.a, first), number(d.b, first), false}
		groups[g] = appendPrefixes(groups[g], addrRange{at, last}, is4)
	}
	var out []piece
	for g, list := range groups {
		if g.a != 0 || g.b != 0 {
			slices.SortFunc(list, comparePrefixes)
			out = append(out, piece{g.a, g.b, g.device, list})
		}
	}
	slices.SortFunc(out, func(x, y piece) int { return comparePrefixes(x.prefixes[0], y.prefixes[0]) })
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
	if len(d.a.self)+len(d.b.self) == 0 || !s.device || !t.device {
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
	if len(d.a.self) == 0 && len(d.b.self) == 0 {
		return out
	}
	byUser := map[string][]netip.Prefix{}
	for p := range d.addresses() {
		if u := d.userOf(p); u != "" && p.Addr().Is4() == is4 {
			byUser[u] = append(byUser[u], p)
		}
	}
	twin := func(c *compiled, p netip.Prefix) set {
		x, ok := c.devices.Lookup(p.Addr())
		if !ok {
			return set{}
		}
		z := c.zones[x.zone]
		if z.twin != 0 {
			z = c.zones[z.twin]
		}
		return z.set
	}
	role := func(c *compiled, p netip.Prefix) uint32 {
		x, ok := c.devices.Lookup(p.Addr())
		if !ok {
			return 0
		}
		return uint32(x.role)
	}
	for _, list := range byUser {
		slices.SortFunc(list, comparePrefixes)
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

// compare lists the differences between what a source reaches before and after, port
// range by port range, without their ends.
func (d *differ) compare(s, t piece, before, after set) (out []Difference) {
	ra, rb := d.a.roles[s.a], d.b.roles[s.b]
	if d.alike(ra, before, rb, after) {
		return nil
	}
	code := s.device || t.device // else nobody is there to give one
	x, y := d.a.reached(ra, before, code), d.b.reached(rb, after, code)
	emit := func(proto uint8, first, last uint16, a, b string) {
		if a == b {
			return
		}
		if n := len(out); n > 0 && out[n-1].Proto == proto && int(out[n-1].Last)+1 == int(first) && out[n-1].Before == a && out[n-1].After == b {
			out[n-1].Last = last
			return
		}
		out = append(out, Difference{Proto: proto, First: first, Last: last, Before: a, After: b})
	}
	// Walk over both lists of disjoint ranges at once.
	for len(x) > 0 || len(y) > 0 {
		switch {
		case len(y) == 0 || len(x) > 0 && (x[0].proto < y[0].proto || x[0].proto == y[0].proto && x[0].last < y[0].first):
			emit(x[0].proto, x[0].first, x[0].last, x[0].conds, "")
			x = x[1:]
		case len(x) == 0 || y[0].proto < x[0].proto || y[0].last < x[0].first:
			emit(y[0].proto, y[0].first, y[0].last, "", y[0].conds)
			y = y[1:]
		case x[0].first < y[0].first:
			emit(x[0].proto, x[0].first, y[0].first-1, x[0].conds, "")
			x[0].first = y[0].first
		case y[0].first < x[0].first:
			emit(y[0].proto, y[0].first, x[0].first-1, "", y[0].conds)
			y[0].first = x[0].first
		default:
			last := min(x[0].last, y[0].last)
			emit(x[0].proto, x[0].first, last, x[0].conds, y[0].conds)
			if x[0].last == last {
				x = x[1:]
			} else {
				x[0].first = last + 1
			}
			if y[0].last == last {
				y = y[1:]
			} else {
				y[0].first = last + 1
			}
		}
	}
	return out
}

// alike tells whether a source does on a destination what it did, because the same
// rules say so. Nearly every pair is: this is what Diff's time goes into.
func (d *differ) alike(ra, before, rb, after set) bool {
	d.numbers = common(d.numbers[:0], ra, before)
	some := len(d.numbers)
	d.numbers = common(d.numbers, rb, after)
	if len(d.numbers) == 0 {
		return true
	}
	x, y := d.numbers[:some], d.numbers[some:]
	for i := range x {
		x[i] = d.says[0][x[i]]
	}
	for i := range y {
		y[i] = d.says[1][y[i]]
	}
	slices.Sort(x)
	slices.Sort(y)
	return slices.Equal(slices.Compact(x), slices.Compact(y))
}

// number gives rules that grant the same ports under the same condition the same number.
func (d *differ) number() {
	known := map[string]int{}
	for i, c := range []*compiled{d.a, d.b} {
		d.says[i] = make([]int, len(c.rules))
		for n, r := range c.rules {
			key := spansText(r.spans) + "\x00" + c.conds[r.cond].text(c.options.Session)
			if _, ok := known[key]; !ok {
				known[key] = len(known)
			}
			d.says[i][n] = known[key]
		}
	}
}

// ranged is a range of ports with the conditions under which it is reached.
type ranged struct {
	span
	conds string
}

// reached lists what a role reaches by rules; without anybody who could give a code, only
// by those that ask for none.
func (c *compiled) reached(role, rules set, code bool) []ranged {
	mine := newScratch(len(c.rules))
	rules.each(func(n int) bool {
		if _, ok := first(role, singleton(n)); ok && (code || c.conds[c.rules[n].cond].mfa == 0) {
			mine.add(n)
		}
		return true
	})
	var out []ranged
	c.sweep(newSet(mine), nil, newScratch(len(c.rules)), func(proto uint8, first, last uint16, covering scratch) {
		out = append(out, ranged{span{proto, first, last}, c.condsText(newSet(covering))})
	})
	return out
}

// condsText names the conditions of rules, without those that another one outdoes.
func (c *compiled) condsText(rules set) string {
	var conds []cond
	rules.each(func(n int) bool {
		conds = append(conds, c.conds[c.rules[n].cond])
		return true
	})
	var texts []string
	for i, k := range conds {
		outdone := slices.ContainsFunc(conds[:i], func(o cond) bool { return o.outdoes(k) }) ||
			slices.ContainsFunc(conds[i+1:], func(o cond) bool { return o.outdoes(k) && !k.outdoes(o) })
		if !outdone {
			texts = append(texts, cmp.Or(strings.TrimPrefix(k.text(c.options.Session), "; "), "always"))
		}
	}
	slices.Sort(texts)
	return strings.Join(slices.Compact(texts), " or ")
}

// outdoes tells whether k holds whenever o does.
func (k cond) outdoes(o cond) bool {
	sameHours := k.hours == nil || o.hours != nil && k.hours.String() == o.hours.String()
	return sameHours && compareMFA(k.mfa, o.mfa) >= 0 && compareUntil(k.expires, o.expires) >= 0
}

// places names prefixes.
func (d *differ) places(prefixes []netip.Prefix) []Place {
	of := map[string][]netip.Prefix{}
	for _, x := range prefixes {
		name := d.names[x]
		if name == "" {
			name = prefixText(x)
		}
		of[name] = append(of[name], x)
	}
	out := make([]Place, 0, len(of))
	for name, list := range of {
		out = append(out, Place{name, list})
	}
	slices.SortFunc(out, func(a, b Place) int { return strings.Compare(a.Name, b.Name) })
	return out
}

// merge joins differences that say the same of other ends: both families of a host, all
// devices of a user.
func (d *differ) merge(list []Difference) []Difference {
	type what struct {
		ports         span
		before, after string
		other         int
	}
	join := func(list []Difference, mine, other func(*Difference) *[]Place) []Difference {
		index := map[what]int{}
		var out []Difference
		var of, to [][][]Place
		for _, x := range list {
			key := what{span{x.Proto, x.First, x.Last}, x.Before, x.After, d.lists.id(*other(&x))}
			i, ok := index[key]
			if !ok {
				i = len(out)
				index[key] = i
				out, of, to = append(out, x), append(of, nil), append(to, nil)
			}
			of[i], to[i] = append(of[i], *mine(&x)), append(to[i], *other(&x))
		}
		for i := range out {
			*mine(&out[i]), *other(&out[i]) = d.lists.union(of[i]), d.lists.union(to[i])
		}
		return out
	}
	src := func(x *Difference) *[]Place { return &x.Sources }
	dst := func(x *Difference) *[]Place { return &x.Destinations }
	list = join(list, dst, src)
	list = join(list, src, dst)
	for i := range list {
		list[i].Sources = d.lists.renamed(list[i].Sources, d.people)
	}
	slices.SortFunc(list, func(a, b Difference) int {
		return cmp.Or(strings.Compare(d.lists.name(a.Sources), d.lists.name(b.Sources)),
			strings.Compare(d.lists.name(a.Destinations), d.lists.name(b.Destinations)),
			cmp.Compare(a.Proto, b.Proto), cmp.Compare(a.First, b.First))
	})
	return list
}

// people replaces all devices of a user by the user: all those of a family of addresses,
// if the other one plays no part.
func (d *differ) people(list []Place) []Place {
	count := map[family]int{}
	for _, p := range list {
		for _, x := range p.Prefixes {
			if u := d.userOf(x); u != "" {
				count[family{u, x.Addr().Is4()}]++
			}
		}
	}
	all := func(f family) bool { return count[f] == 0 || count[f] == d.devices[f] }
	var out []Place
	for _, p := range list {
		if u := d.userOf(p.Prefixes[0]); u != "" && all(family{u, true}) && all(family{u, false}) {
			p.Name = u
		}
		out = append(out, p)
	}
	return union([][]Place{out})
}
