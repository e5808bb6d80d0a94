package review

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"vpnd/acl/internal/bitset"
	"vpnd/acl/internal/ranges"
	"vpnd/acl/language"
	"vpnd/acl/rules"
)

// maxTestWork bounds the pairs of sources and destinations that tests look at.
const maxTestWork = 2_000_000

// end is one source or destination that a test's selector comes to: a device, a piece of
// the address space, or a device that does not exist yet.
type end struct {
	label  string
	rules  bitset.Set
	user   string // of an untagged device
	is4    bool
	is6    bool // both: a device that does not exist yet
	device bool
}

// tester runs a policy's tests. It takes every session for live, every code for fresh,
// and every grant for open: an instant inside its "hours" and before its "expires". So a
// "deny" that holds, holds always, and an "accept" that holds says what the policy
// gives when its hour has come.
type tester struct {
	r        *rules.Ruleset
	f        *language.Faults
	book     *rules.AddressBook
	subjects []rules.Subject
	byUser   map[string][]int
	work     int
	known    map[knownEnds][]end
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

// Check parses nothing: it compiles p, runs its tests against these devices, and returns
// every fault and warning. With faults there is no Ruleset.
func Check(p *language.Policy, o rules.Options, subjects []rules.Subject) (*rules.Ruleset, language.ErrorList) {
	r, err := rules.Compile(p, o, subjects)
	if list, ok := errors.AsType[language.ErrorList](err); ok {
		return nil, list
	}
	if err != nil {
		return nil, language.ErrorList{{Line: 1, Column: 1, Message: err.Error()}}
	}
	list := r.Warnings()
	if failed := RunTests(r, subjects); len(failed) > 0 {
		list = append(list, failed...)
		list.Sort()
		return nil, list
	}
	return r, list
}

// RunTests runs the tests of the policy that r was compiled from, with the devices that it
// was compiled with, and returns those that fail.
func RunTests(r *rules.Ruleset, subjects []rules.Subject) language.ErrorList {
	tests := r.Policy().Tests()
	if len(tests) == 0 {
		return nil
	}
	f := r.Policy().Faults()
	t := &tester{r: r, f: f, book: r.AddressBook(), subjects: subjects,
		byUser: map[string][]int{}, known: map[knownEnds][]end{}}
	for i, s := range subjects {
		if len(s.Tags) == 0 {
			u := language.Fold(s.User)
			t.byUser[u] = append(t.byUser[u], i)
		}
	}
	for _, x := range tests {
		for _, src := range x.Src {
			for _, d := range x.Accept {
				t.check(src, d, x.Protos, true)
			}
			for _, d := range x.Deny {
				t.check(src, d, x.Protos, false)
			}
			if t.work > maxTestWork {
				f.Errorf(x.At, "the tests look at more than %d pairs of source and destination: test narrower ones", maxTestWork)
				return f.Sorted()
			}
		}
	}
	return f.Sorted()
}

// check holds one source of a test against one destination.
func (t *tester) check(src language.Selector, dst language.TestDst, protos []uint8, accept bool) {
	if protos == nil {
		protos = []uint8{language.ProtoTCP, language.ProtoUDP}
	}
	var want []ranges.Range // ports
	for _, w := range dst.Windows {
		want = append(want, ranges.Numbers(uint64(w.Start), uint64(w.End-1)))
	}
	if dst.Windows == nil {
		want = []ranges.Range{ranges.Numbers(1, 65535)}
	}
	want = ranges.Merge(want)
	reached := false
	for _, s := range t.ends(src, asSource) {
		for _, d := range t.destinations(dst.Selector, s) {
			if s.is4 && !s.is6 && !d.is4 || s.is6 && !s.is4 && !d.is6 {
				continue
			}
			if t.work++; t.work > maxTestWork {
				return
			}
			covered, by := t.covered(s, d, protos)
			if accept {
				reached = true
				if left := ranges.Subtract(want, covered); len(left) > 0 {
					t.f.Errorf(dst.At, "the test fails: %s does not reach %s at port %d: grant it, or take it out of \"accept\"", s.label, d.label, left[0].First.Lo)
					return
				}
			} else if left := ranges.Subtract(want, covered); !slices.Equal(left, want) {
				info, _ := t.r.Grant(by)
				t.f.Errorf(dst.At, "the test fails: %s reaches %s by the grant in line %d: narrow that grant, or take it out of \"deny\"", s.label, d.label, info.Line)
				return
			}
		}
	}
	if accept && !reached {
		t.f.Errorf(dst.At, "the test fails: no address of %s can reach an address of %s: they have none, or none of the same family", src, dst.Text)
	}
}

// covered returns the ports that s reaches on d, by any of the protocols, and the grant
// of one of them.
func (t *tester) covered(s, d end, protos []uint8) (ports []ranges.Range, by int) {
	to := d.rules
	if d.device && s.device && s.user != "" && s.user == d.user {
		to = to.With(t.r.RulesToSelf())
	}
	if !s.rules.Meets(to) {
		return nil, -1
	}
	to.Each(func(n int) bool {
		if !s.rules.Has(n) {
			return true
		}
		if t.r.Condition(n).AsksCode() && !s.device && !d.device {
			return true // nobody there could give a code
		}
		rule := &t.r.Rules()[n]
		for _, x := range rule.Spans {
			if slices.Contains(protos, x.Proto) {
				ports = append(ports, ranges.Numbers(uint64(x.First), uint64(x.Last)))
				by = rule.Grant
			}
		}
		return true
	})
	return ranges.Merge(ports), by
}

// destinations are the ends of a destination as the source s sees them.
func (t *tester) destinations(x language.Selector, s end) []end {
	if x.Kind != language.SelectSelf {
		return t.ends(x, asDestination)
	}
	if s.user == "" {
		return nil
	}
	return []end{t.hypothetical(asDestination, rules.Subject{User: s.user}, "another device of "+s.user)}
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
			list = t.addresses(list, as, rules.Everywhere[:])
		}
	default:
		list = t.addresses(list, as, t.book.Of(x))
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
	e := end{label: fmt.Sprintf("%s (%s)", d.Subject.Device, a), user: d.User, is4: a.Is4(), is6: !a.Is4(), device: true}
	if as == asSource {
		e.rules = t.r.RulesFrom(d.Role)
	} else {
		e.rules = t.r.RulesTo(d.Zone)
	}
	return e
}

// hypothetical is a device that does not exist yet, whatever its address will be.
func (t *tester) hypothetical(as side, s rules.Subject, label string) end {
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
func (t *tester) addresses(list []end, as side, prefixes []netip.Prefix) []end {
	for _, p := range prefixes {
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
			if x.Addr().Is4() == is4 && x.Overlaps(p) {
				rest = ranges.Subtract(rest, []ranges.Range{ranges.Of(x)})
				list = append(list, end{label: language.PrefixText(narrower(x, p)), rules: of, is4: is4, is6: !is4})
			}
			t.work++
		}
		if as == asSource {
			for _, x := range t.r.Sources() {
				piece(x.Prefix, t.r.RulesFrom(x.Role))
			}
		} else {
			for _, x := range t.r.Destinations() {
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
		key = fmt.Append(e.rules.AppendKey(key[:0]), " ", e.is4, e.is6, e.device)
		if len(t.r.RulesToSelf()) > 0 {
			key = append(key, e.user...)
		}
		if seen[string(key)] {
			return true
		}
		seen[string(key)] = true
		return false
	})
}
