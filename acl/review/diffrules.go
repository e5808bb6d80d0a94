package review

import (
	"cmp"
	"slices"
	"strings"

	"vpnd/acl/internal/bitset"
	"vpnd/acl/language"
	"vpnd/acl/rules"
)

// compare lists the differences between what a source reaches before and after, port
// range by port range, without their ends.
func (d *differ) compare(s, t piece, before, after bitset.Set) (out []Difference) {
	ra, rb := d.a.RulesFrom(rules.RoleID(s.a)), d.b.RulesFrom(rules.RoleID(s.b))
	if d.alike(ra, before, rb, after) {
		return nil
	}
	code := s.device || t.device // else nobody is there to give one
	x, y := reached(d.a, ra, before, code), reached(d.b, rb, after, code)
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
		case len(y) == 0 || len(x) > 0 && (x[0].Proto < y[0].Proto || x[0].Proto == y[0].Proto && x[0].Last < y[0].First):
			emit(x[0].Proto, x[0].First, x[0].Last, x[0].conds, "")
			x = x[1:]
		case len(x) == 0 || y[0].Proto < x[0].Proto || y[0].Last < x[0].First:
			emit(y[0].Proto, y[0].First, y[0].Last, "", y[0].conds)
			y = y[1:]
		case x[0].First < y[0].First:
			emit(x[0].Proto, x[0].First, y[0].First-1, x[0].conds, "")
			x[0].First = y[0].First
		case y[0].First < x[0].First:
			emit(y[0].Proto, y[0].First, x[0].First-1, "", y[0].conds)
			y[0].First = x[0].First
		default:
			last := min(x[0].Last, y[0].Last)
			emit(x[0].Proto, x[0].First, last, x[0].conds, y[0].conds)
			if x[0].Last == last {
				x = x[1:]
			} else {
				x[0].First = last + 1
			}
			if y[0].Last == last {
				y = y[1:]
			} else {
				y[0].First = last + 1
			}
		}
	}
	return out
}

// alike tells whether a source does on a destination what it did, because the same
// rules say so. Nearly every pair is: this is what Diff's time goes into.
func (d *differ) alike(ra, before, rb, after bitset.Set) bool {
	d.numbers = bitset.Common(d.numbers[:0], ra, before)
	some := len(d.numbers)
	d.numbers = bitset.Common(d.numbers, rb, after)
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
	for i, r := range []*rules.Ruleset{d.a, d.b} {
		d.says[i] = make([]int, len(r.Rules()))
		for n, x := range r.Rules() {
			key := language.SpansText(x.Spans) + "\x00" + r.Condition(n).Text(r.Options().Session)
			if _, ok := known[key]; !ok {
				known[key] = len(known)
			}
			d.says[i][n] = known[key]
		}
	}
}

// ranged is a range of ports with the conditions under which it is reached.
type ranged struct {
	language.Span
	conds string
}

// reached lists what a role reaches by rules; without anybody who could give a code, only
// by those that ask for none.
func reached(r *rules.Ruleset, role, to bitset.Set, code bool) (out []ranged) {
	mine := to.Filter(func(n int) bool { return role.Has(n) && (code || !r.Condition(n).AsksCode()) })
	r.Sweep(mine, func(proto uint8, first, last uint16, covering bitset.Set) {
		out = append(out, ranged{language.Span{Proto: proto, First: first, Last: last}, condsText(r, covering)})
	})
	return out
}

// condsText names the conditions of rules that cover a port, without those that another one outdoes.
func condsText(r *rules.Ruleset, covering bitset.Set) string {
	var conds []*rules.Condition
	covering.Each(func(n int) bool {
		conds = append(conds, r.Condition(n))
		return true
	})
	var texts []string
	for i, k := range conds {
		outdone := slices.ContainsFunc(conds[:i], func(o *rules.Condition) bool { return o.Outdoes(k) }) ||
			slices.ContainsFunc(conds[i+1:], func(o *rules.Condition) bool { return o.Outdoes(k) && !k.Outdoes(o) })
		if !outdone {
			texts = append(texts, cmp.Or(strings.TrimPrefix(k.Text(r.Options().Session), "; "), "always"))
		}
	}
	slices.Sort(texts)
	return strings.Join(slices.Compact(texts), " or ")
}
