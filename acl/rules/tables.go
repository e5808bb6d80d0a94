package rules

import (
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"slices"

	"vpnd/acl/internal/bitset"
	"vpnd/acl/internal/layered"
)

// tables are the numbered sets of rules that the lookups go through. They are
// immutable: what With must add makes new ones that share the old.
//
// A device's zone has a twin for packets from other devices of the same user, which
// adds the rules that lead to autogroup:self. Roles need no twin: a role says that a
// rule has the device as a source, whatever user's. So autogroup:self costs one zone
// for each zone that untagged devices are in, however many users there are.
type tables struct {
	roles   []bitset.Set // roles[0] is empty, and so on
	zones   []zone
	classes []class

	roleIDs  layered.Map[RoleID]
	zoneIDs  layered.Map[ZoneID]
	classIDs layered.Map[ClassID]
}

// zone is a set of rules whose destinations contain an address.
type zone struct {
	set   bitset.Set
	ports []Ports
	twin  ZoneID // for packets from the same user's devices; 0: none
}

// class is a set of rules that cover a port range of a zone.
type class struct {
	set   bitset.Set
	conds []condSet
}

// condSet is those rules of a class that have the same condition.
type condSet struct {
	cond uint32
	set  bitset.Set
}

// builder numbers sets, for Compile and for With.
type builder struct {
	pr      *program
	t       tables
	shared  bool // t belongs to another Ruleset: copy before changing
	shape   uint64
	scratch bitset.Scratch
	sweeper bitset.Scratch
	events  []event
	key     []byte
	over    bool // the budget is spent: what is made is not to be used
}

func newBuilder(pr *program) *builder {
	b := &builder{pr: pr, scratch: bitset.NewScratch(len(pr.rules)), sweeper: bitset.NewScratch(len(pr.rules))}
	empty := string(bitset.AppendKey(nil, nil))
	b.t.roles, b.t.roleIDs.Base = []bitset.Set{{}}, map[string]RoleID{empty: 0}
	b.t.zones, b.t.zoneIDs.Base = []zone{{}}, map[string]ZoneID{empty: 0}
	b.t.classes, b.t.classIDs.Base = []class{{}}, map[string]ClassID{empty: 0}
	return b
}

// grow appends to a list that may be another Ruleset's too.
func grow[T any](list []T, v T, shared bool) []T {
	if shared {
		list = slices.Clip(list)
	}
	return append(list, v)
}

func put[V any](x *layered.Map[V], key []byte, v V, shared bool) {
	if shared {
		*x = x.With(string(key), v)
	} else {
		x.Base[string(key)] = v
	}
}

// role numbers a set of rules as a role.
func (b *builder) role(s bitset.Scratch) RoleID {
	b.key = bitset.AppendKey(b.key[:0], s)
	id, ok := b.t.roleIDs.Get(b.key)
	if !b.spend(s, ok, 0) {
		return 0
	}
	if !ok {
		id = RoleID(len(b.t.roles))
		b.t.roles = grow(b.t.roles, bitset.New(s), b.shared)
		put(&b.t.roleIDs, b.key, id, b.shared)
		b.shape = digest(b.shape, 'r', b.key)
	}
	return id
}

// class numbers a set of rules as a class.
func (b *builder) class(s bitset.Scratch) ClassID {
	b.key = bitset.AppendKey(b.key[:0], s)
	id, ok := b.t.classIDs.Get(b.key)
	if ok {
		b.spend(s, true, 0)
		return id
	}
	if set := bitset.New(s); b.spend(s, false, b.pr.conditionBytes(set)) {
		id = ClassID(len(b.t.classes))
		b.t.classes = grow(b.t.classes, b.pr.newClass(set), b.shared)
		put(&b.t.classIDs, b.key, id, b.shared)
	}
	return id
}

// zone numbers a set of rules as a zone. With a twin, the zone is an untagged device's.
func (b *builder) zone(s bitset.Scratch, twin bool) ZoneID {
	b.key = bitset.AppendKey(b.key[:0], s)
	id, ok := b.t.zoneIDs.Get(b.key)
	var z zone
	sweep := 0
	if !ok {
		z.set = bitset.New(s)
		sweep = b.pr.sweepBytes(z.set)
	}
	if !b.spend(s, ok, sweep) {
		return 0
	}
	if !ok {
		id = ZoneID(len(b.t.zones))
		b.t.zones = grow(b.t.zones, z, b.shared)
		put(&b.t.zoneIDs, b.key, id, b.shared)
		b.shape = digest(b.shape, 'z', b.key)
		b.events = b.pr.sweep(z.set, b.events, b.sweeper, func(proto uint8, first, last uint16, rules bitset.Scratch) bool {
			c := b.class(rules)
			if b.over {
				return false
			}
			if n := len(z.ports); n > 0 && z.ports[n-1].Proto == proto && z.ports[n-1].Class == c && int(z.ports[n-1].Last)+1 == int(first) {
				z.ports[n-1].Last = last
				return true
			}
			z.ports = append(z.ports, Ports{proto, first, last, c})
			return true
		})
		b.t.zones[id].ports = z.ports // the last, which is ours alone
	}
	if twin && len(b.pr.self) > 0 && b.t.zones[id].twin == 0 && !b.over {
		s.AddAll(b.pr.self)
		t := b.zone(s, false)
		if b.shared {
			b.t.zones = slices.Clone(b.t.zones)
		}
		b.t.zones[id].twin = t
		b.shape = digest(b.shape, 't', binary.BigEndian.AppendUint32(nil, uint32(id)))
	}
	return id
}

// renumber sorts sets that were met in any order and numbers them anew, from 1.
// moved[old] is the new number.
func renumber[T any](list []T, setOf func(T) bitset.Set) (sorted []T, moved []uint32) {
	order := make([]int, len(list))
	for i := range order {
		order[i] = i
	}
	slices.SortFunc(order, func(a, b int) int {
		if a == 0 || b == 0 { // the empty set stays number 0
			return cmp.Compare(a, b)
		}
		return bitset.Compare(setOf(list[a]), setOf(list[b]))
	})
	sorted, moved = make([]T, len(list)), make([]uint32, len(list))
	for n, o := range order {
		sorted[n], moved[o] = list[o], uint32(n)
	}
	return sorted, moved
}

// newClass groups the rules of a class by their conditions.
func (pr *program) newClass(s bitset.Set) class {
	c := class{set: s}
	only, same := pr.sameCondition(s)
	if same {
		c.conds = []condSet{{only, s}}
		return c
	}
	var list []uint64 // condition<<32 | rule
	s.Each(func(n int) bool {
		list = append(list, uint64(pr.rules[n].cond)<<32|uint64(n))
		return true
	})
	slices.Sort(list)
	var numbers []uint32
	for i := 0; i < len(list); {
		k := uint32(list[i] >> 32)
		for numbers = numbers[:0]; i < len(list) && uint32(list[i]>>32) == k; i++ {
			numbers = append(numbers, uint32(list[i]))
		}
		c.conds = append(c.conds, condSet{k, bitset.Of(numbers)})
	}
	return c
}

// sameCondition tells whether the rules of a set have all the same condition, as they
// nearly always do, and which.
func (pr *program) sameCondition(s bitset.Set) (only uint32, same bool) {
	same = true
	if len(pr.conds) > 1 {
		some := false
		s.Each(func(n int) bool {
			k := pr.rules[n].cond
			same = !some || k == only
			only, some = k, true
			return same
		})
	}
	return only, same
}

// allEvents tells whether a zone has so many rules that they are picked out of all events.
func (pr *program) allEvents(zone bitset.Set) bool { return zone.Count()*8 > len(pr.rules) }

// event is a rule's beginning or end on the line of a protocol's ports.
type event struct {
	at    uint32 // protocol, then port: proto<<17 | port
	rule  uint32
	begin bool
}

func (r *rule) appendEvents(events []event, n int) []event {
	for _, x := range r.Spans {
		at := uint32(x.Proto) << 17
		events = append(events, event{at + uint32(x.First), uint32(n), true}, event{at + uint32(x.Last) + 1, uint32(n), false})
	}
	return events
}

func sortEvents(events []event) {
	slices.SortFunc(events, func(a, b event) int { return cmp.Compare(a.at, b.at) })
}

// sweep splits the ports of a zone's rules into disjoint ranges and calls each with
// every range and the rules that cover it.
func (pr *program) sweep(zoneSet bitset.Set, events []event, s bitset.Scratch, each func(proto uint8, first, last uint16, rules bitset.Scratch) bool) []event {
	events = events[:0]
	s.Clear()
	zoneSet.Each(func(n int) bool {
		s.Add(n)
		return true
	})
	if pr.allEvents(zoneSet) {
		// Most rules: pick them out of all events, which are sorted already.
		for _, e := range pr.events {
			if s.Has(int(e.rule)) {
				events = append(events, e)
			}
		}
	} else {
		zoneSet.Each(func(n int) bool {
			events = pr.rules[n].appendEvents(events, n)
			return true
		})
		sortEvents(events)
	}
	s.Clear()
	active := 0
	for i := 0; i < len(events); {
		at := events[i].at
		for ; i < len(events) && events[i].at == at; i++ {
			if e := events[i]; e.begin {
				s.Add(int(e.rule))
				active++
			} else {
				s.Remove(int(e.rule))
				active--
			}
		}
		if active > 0 { // then another event of the same protocol follows
			if !each(uint8(at>>17), uint16(at), uint16(events[i].at-1), s) {
				break
			}
		}
	}
	return events
}

// digest mixes one thing more into a number that stands for all so far.
func digest(seed uint64, kind byte, b []byte) uint64 {
	h := sha256.New()
	h.Write(append(binary.BigEndian.AppendUint64(nil, seed), kind))
	h.Write(b)
	return binary.BigEndian.Uint64(h.Sum(nil))
}
