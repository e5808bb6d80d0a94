package review

import (
	"fmt"
	"net/netip"
	"slices"

	"vpnd/acl/internal/bitset"
	"vpnd/acl/internal/ranges"
	"vpnd/acl/language"
	"vpnd/acl/rules"
)

// end is one source or destination that a test's selector comes to: a device, a piece of
// the address space, or a device that does not exist yet.
type end struct {
	label   string
	rules   bitset.Set
	user    string // of an untagged device
	is4     bool
	is6     bool // both: a device that does not exist yet
	device  bool
	service bool       // of a resource
	addr    netip.Addr // of a device that exists
}

// side tells sources from destinations.
type side bool

const (
	asSource      side = true
	asDestination side = false
)

type knownEnds struct {
	side side
	text string
}

// destinations are the ends of a destination as the source s sees them.
func (t *tester) destinations(x language.Selector, s end) []end {
	if x.Kind != language.SelectSelf {
		return t.ends(x, asDestination)
	}
	if s.user == "" {
		return nil
	}
	others := []end{t.hypothetical(asDestination, rules.Subject{User: s.user}, "another device of "+s.user)}
	for _, i := range t.byUser[s.user] {
		for _, a := range t.subjects[i].Addrs {
			if d := t.r.Enrolled(a); d != nil && a.Unmap() != s.addr && t.spend(perEnd) {
				others = append(others, t.enrolled(asDestination, d, a.Unmap()))
			}
		}
	}
	return others
}

// ends are all devices and pieces of the address space that a selector comes to. Where
// new devices may come, one that does not exist yet is among them.
func (t *tester) ends(x language.Selector, as side) []end {
	key := knownEnds{as, x.String()}
	if list, ok := t.known[key]; ok {
		return list
	}
	var list []end
	if x.Kind == language.SelectAny && as == asSource {
		list = t.devices(list, as, func(s *rules.Subject) bool { return true })
		list = append(list, t.hypothetical(as, rules.Subject{}, "a member"), t.hypothetical(as, rules.Subject{Tags: []string{""}}, "a tagged device"))
	}
	switch x.Kind {
	case language.SelectUser:
		list = t.user(list, as, x.Name)
	case language.SelectGroup:
		members, _ := t.r.Policy().Members(x.Name)
		for _, u := range members {
			list = t.user(list, as, u)
		}
	case language.SelectMembers:
		list = t.devices(list, as, func(s *rules.Subject) bool { return len(s.Tags) == 0 })
		list = append(list, t.hypothetical(as, rules.Subject{}, "a member"))
	case language.SelectTagged:
		list = t.devices(list, as, func(s *rules.Subject) bool { return len(s.Tags) > 0 })
		list = append(list, t.hypothetical(as, rules.Subject{Tags: []string{""}}, "a tagged device"))
	case language.SelectTag:
		list = t.devices(list, as, func(s *rules.Subject) bool { return slices.Contains(s.Tags, x.Name) })
		list = append(list, t.hypothetical(as, rules.Subject{Tags: []string{x.Name}}, "a device with "+x.Name))
	case language.SelectAny:
		if as == asDestination {
			list = t.addresses(list, as, rules.Everywhere[:], true)
		}
	default:
		list = t.addresses(list, as, t.book.Of(x), false)
	}
	list = t.distinct(list)
	t.known[key] = list
	return list
}

// user appends a user's devices, or one to come.
func (t *tester) user(list []end, as side, user string) []end {
	if len(t.byUser[user]) == 0 {
		return append(list, t.hypothetical(as, rules.Subject{User: user}, user))
	}
	for _, i := range t.byUser[user] {
		list = t.device(list, as, &t.subjects[i])
	}
	return list
}

func (t *tester) devices(list []end, as side, match func(*rules.Subject) bool) []end {
	for i := range t.subjects {
		if s := &t.subjects[i]; match(s) {
			list = t.device(list, as, s)
		}
	}
	return list
}

// device appends every address of a subject.
func (t *tester) device(list []end, as side, s *rules.Subject) []end {
	for _, a := range s.Addrs {
		if d := t.r.Enrolled(a); d != nil {
			list = append(list, t.enrolled(as, d, a.Unmap()))
		}
	}
	return list
}

func (t *tester) enrolled(as side, d *rules.Enrolled, a netip.Addr) end {
	t.spend(perEnd)
	e := end{label: fmt.Sprintf("%s (%s)", d.Subject.Device, a), user: d.User, is4: a.Is4(), is6: !a.Is4(), device: true, addr: a}
	if as == asSource {
		e.rules = t.r.RulesFrom(d.Role)
	} else {
		e.rules = t.r.RulesTo(d.Zone)
	}
	return e
}

// hypothetical is a device that does not exist yet, whatever its address will be.
func (t *tester) hypothetical(as side, s rules.Subject, label string) end {
	if !t.spend(perEnd + len(t.r.Rules())/2) {
		return end{}
	}
	e := end{label: label, user: language.Fold(s.User), is4: true, is6: true, device: true}
	if as == asSource {
		e.rules = t.r.SourceRules(&s)
	} else {
		e.rules = t.r.DestinationRules(&s)
	}
	return e
}

// addresses appends what prefixes hold: the devices among them, and the pieces of the
// rest that have the same rules. The tunnel's addresses that no device has are nobody.
//
// Resources lie there, too, and no prefix leads to them. Everything does: whoever reaches
// everything reaches each resource on its own ports, so that a "deny" of everything is held
// against them, and an "accept" is not.
func (t *tester) addresses(list []end, as side, prefixes []netip.Prefix, everything bool) []end {
	for _, p := range prefixes {
		if !t.spend(perEnd) {
			break
		}
		is4 := p.Addr().Is4()
		for a, d := range t.r.EnrolledIn(p) {
			list = append(list, t.enrolled(as, d, a.Addr()))
		}
		if p.IsSingleIP() && t.r.Enrolled(p.Addr()) != nil {
			continue
		}
		all := []ranges.Range{ranges.Of(p)}
		if !p.IsSingleIP() {
			for _, n := range t.r.Options().Network {
				if n.Addr().Is4() == is4 {
					all = ranges.Subtract(all, []ranges.Range{ranges.Of(n.Masked())})
				}
			}
		}
		rest := slices.Clone(all)
		piece := func(x netip.Prefix, of bitset.Set) {
			if !t.spend(perEntry) {
				return
			}
			service := t.services[x.Addr()] && x.IsSingleIP()
			if service && x != p && !everything {
				return
			}
			if x.Addr().Is4() == is4 && x.Overlaps(p) && t.spend(perEnd+2*perEntry*len(rest)) {
				rest = ranges.Subtract(rest, []ranges.Range{ranges.Of(x)})
				list = append(list, end{label: language.PrefixText(narrower(x, p)), rules: of, is4: is4, is6: !is4, service: service})
			}
		}
		if as == asSource {
			for _, x := range t.from {
				piece(x.Prefix, t.r.RulesFrom(x.Role))
			}
		} else {
			for _, x := range t.to {
				piece(x.Prefix, t.r.RulesTo(x.Zone))
			}
		}
		if len(rest) > 0 {
			list = append(list, end{label: rest[0].First.Netip(is4).String(), is4: is4, is6: !is4})
		}
	}
	return list
}

// narrower is the one of two overlapping prefixes that lies inside the other.
func narrower(a, b netip.Prefix) netip.Prefix {
	if a.Bits() > b.Bits() {
		return a
	}
	return b
}

// distinct leaves ends out that no test can tell from another.
func (t *tester) distinct(list []end) []end {
	seen := map[string]bool{}
	var key []byte
	return slices.DeleteFunc(list, func(e end) bool {
		key = fmt.Append(e.rules.AppendKey(key[:0]), " ", e.is4, e.is6, e.device, e.service)
		if len(t.r.RulesToSelf()) > 0 {
			key = append(key, e.user...)
		}
		if t.self {
			key = fmt.Append(key, " ", e.user, e.addr)
		}
		if seen[string(key)] {
			return true
		}
		seen[string(key)] = true
		return false
	})
}
