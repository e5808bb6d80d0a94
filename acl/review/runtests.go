package review

import (
	"errors"
	"net/netip"
	"slices"

	"vpnd/acl/internal/ranges"
	"vpnd/acl/language"
	"vpnd/acl/rules"
)

// What tests look at beside the words of sets, in bytes: an end with its label, an entry of
// a list.
const (
	perEnd   = 256
	perEntry = 16
)

// tester runs a policy's tests. It takes every session for live, every code for fresh,
// and every grant for open: an instant inside its "hours" and before its "expires". So a
// "deny" that holds, holds always, and an "accept" that holds says what the policy
// gives when its hour has come. A device that is both ends stands for another one like it.
type tester struct {
	r        *rules.Ruleset
	f        *language.Faults
	book     *rules.AddressBook
	subjects []rules.Subject
	byUser   map[string][]int
	known    map[knownEnds][]end

	self bool // a test asks about autogroup:self: then every device counts

	budget *rules.Budget
	at     language.TextRange // of the test under way
	// The pieces of the address space that have roles and zones.
	from     []rules.PrefixRole
	to       []rules.PrefixZone
	services map[netip.Addr]bool // service addresses of resources
}

func (t *tester) spend(bytes int) bool { return t.budget.Spend(bytes, t.at) }

// Check compiles p, runs its tests against these devices, and returns
// every fault and warning. With faults there is no Ruleset. Of a policy that was accepted
// before and of which parts are refused now, tests that fail are warnings: they speak of
// what it was.
func Check(p *language.Policy, o rules.Options, subjects []rules.Subject) (*rules.Ruleset, language.ErrorList) {
	r, err := rules.Compile(p, o, subjects)
	if list, ok := errors.AsType[language.ErrorList](err); ok {
		return nil, list
	}
	if err != nil {
		return nil, language.ErrorList{{Line: 1, Column: 1, Code: language.CodeInternal, Message: err.Error()}}
	}
	list := r.Warnings()
	failed := RunTests(r, subjects)
	if len(p.Ignored()) > 0 {
		for i := range failed {
			failed[i].Warning = true
		}
	}
	list = append(list, failed...)
	list.Sort()
	if failed.Fatal() {
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
		byUser: map[string][]int{}, known: map[knownEnds][]end{}, budget: rules.NewBudget(rules.MaxTestBytes),
		from: r.Sources(), to: r.Destinations(), services: map[netip.Addr]bool{}}
	for _, addrs := range r.Options().Services {
		for _, a := range addrs {
			t.services[a.Unmap()] = true
		}
	}
	for i, s := range subjects {
		if len(s.Tags) == 0 {
			u := language.Fold(s.User)
			t.byUser[u] = append(t.byUser[u], i)
		}
	}
	for _, x := range tests {
		for _, d := range slices.Concat(x.Accept, x.Deny) {
			t.self = t.self || d.Kind == language.SelectSelf
		}
	}
	for _, x := range tests {
		t.at = x.At
		for _, src := range x.Src {
			for _, d := range x.Accept {
				t.check(src, d, x.Protos, true)
			}
			for _, d := range x.Deny {
				t.check(src, d, x.Protos, false)
			}
			if at, spent := t.budget.Spent(); spent {
				f.Errorf(at, language.CodeOverBudget, "up to here the tests look at more than %d MB of sets: test fewer or narrower sources and destinations", rules.MaxTestBytes>>20)
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
	if !t.spend(perEnd + perEntry*len(dst.Windows)) {
		return
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
			if accept && d.service && dst.Kind == language.SelectAny {
				continue
			}
			covered, by := t.covered(s, d, protos)
			if _, spent := t.budget.Spent(); spent {
				return // of what was not looked at nothing is said
			}
			if accept {
				reached = true
				if left := ranges.Subtract(want, covered); len(left) > 0 {
					t.f.Errorf(dst.At, language.CodeTestFailed, "the test fails: %s does not reach %s at port %d: grant it, or take it out of \"accept\"", s.label, d.label, left[0].First.Lo)
					return
				}
			} else if left := ranges.Subtract(want, covered); !slices.Equal(left, want) {
				info, _ := t.r.Grant(by)
				t.f.Errorf(dst.At, language.CodeTestFailed, "the test fails: %s reaches %s by the grant in line %d: narrow that grant, or take it out of \"deny\"", s.label, d.label, info.Line)
				return
			}
		}
	}
	if accept && !reached {
		t.f.Errorf(dst.At, language.CodeTestFailed, "the test fails: no address of %s can reach an address of %s: they have none, or none of the same family", src, dst.Text)
	}
}

// covered returns the ports that s reaches on d, by any of the protocols, and the grant
// of one of them.
func (t *tester) covered(s, d end, protos []uint8) (ports []ranges.Range, by int) {
	to := d.rules
	if d.device && s.device && s.user != "" && s.user == d.user {
		to = to.With(t.r.RulesToSelf())
	}
	if !t.spend(perEntry+s.rules.Bytes()+to.Bytes()) || !s.rules.Meets(to) || !t.spend(to.Count()*perEntry) {
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
		if !t.spend(2 * perEntry * len(rule.Spans)) {
			return false
		}
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
