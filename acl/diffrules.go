package acl

import (
	"cmp"
	"slices"
	"strings"
)

// compare lists the differences between what a source reaches before and after, port
// range by port range, without their ends.
func (d *differ) compare(s, t piece, before, after set) (out []Difference) {
	ra, rb := d.a.RulesFrom(RoleID(s.a)), d.b.RulesFrom(RoleID(s.b))
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
	for i, r := range []*Ruleset{d.a, d.b} {
		d.says[i] = make([]int, len(r.Rules()))
		for n, x := range r.Rules() {
			key := spansText(x.spans) + "\x00" + r.Condition(n).text(r.Options().Session)
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
func reached(r *Ruleset, role, to set, code bool) (out []ranged) {
	mine := to.filter(func(n int) bool { return role.has(n) && (code || !r.Condition(n).asksCode()) })
	r.Sweep(mine, func(proto uint8, first, last uint16, covering set) {
		out = append(out, ranged{span{proto, first, last}, condsText(r, covering)})
	})
	return out
}

// condsText names the conditions of rules that cover a port, without those that another one outdoes.
func condsText(r *Ruleset, covering set) string {
	var conds []*cond
	covering.each(func(n int) bool {
		conds = append(conds, r.Condition(n))
		return true
	})
	var texts []string
	for i, k := range conds {
		outdone := slices.ContainsFunc(conds[:i], func(o *cond) bool { return o.outdoes(k) }) ||
			slices.ContainsFunc(conds[i+1:], func(o *cond) bool { return o.outdoes(k) && !k.outdoes(o) })
		if !outdone {
			texts = append(texts, cmp.Or(strings.TrimPrefix(k.text(r.Options().Session), "; "), "always"))
		}
	}
	slices.Sort(texts)
	return strings.Join(slices.Compact(texts), " or ")
}
