package acl

import (
	"cmp"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// program is what a policy and the cluster's options say, whatever devices there are.
// It is immutable and shared by every Ruleset that With derives.
type program struct {
	options Options
	network []netip.Prefix
	policy  *Policy

	grants []GrantInfo // normalised: the same for any order of the text
	rules  []rule
	conds  []cond  // sorted
	events []event // of all rules, sorted

	src, dst     map[selector][]uint32 // the rules that select devices so; sorted
	srcPrefixes  []placed[uint32]      // prefix -> index into srcSets, of the rules that contain it all; sorted
	dstPrefixes  []placed[uint32]
	srcSets      []set
	dstSets      []set
	self         []uint32 // the rules that lead to autogroup:self; sorted
	rulesOfGrant [][]uint32
}

// GrantInfo explains a grant: an entry of "grants" or "acls".
type GrantInfo struct {
	Line, Column int    // where it begins
	Text         string // on one line, sorted: "alice, group:ops -> db tcp:5432; mfa 15m"
	Note         string
}

// rule is a grant, or of an entry of "acls" the part that has the same ports.
type rule struct {
	grant int
	cond  uint32 // index into conds
	spans []span // sorted, disjoint
	src   []target
	dst   []target
}

// cond is the condition of a grant.
type cond struct {
	mfa     time.Duration // 0: off
	hours   *hours        // nil: always
	expires time.Time     // zero: never
}

// text is the condition as people read it; "" if it is the common one.
func (c *cond) text(session time.Duration) string {
	var s string
	switch {
	case c.mfa == 0:
		s = "; mfa off"
	case c.mfa < session:
		s = "; mfa " + durationText(c.mfa)
	}
	if c.hours != nil {
		s += "; " + c.hours.String()
	}
	if !c.expires.IsZero() {
		s += "; expires " + c.expires.Format(time.RFC3339)
	}
	return s
}

// asksCode tells whether a code must have been given, however long ago.
func (c *cond) asksCode() bool { return c.mfa > 0 }

// outdoes tells whether c holds whenever o does.
func (c *cond) outdoes(o *cond) bool {
	sameHours := c.hours == nil || o.hours != nil && c.hours.String() == o.hours.String()
	return sameHours && compareMFA(c.mfa, o.mfa) >= 0 && compareUntil(c.expires, o.expires) >= 0
}

// selector is a way to select devices, as a map's key.
type selector struct {
	kind targetKind // anyTarget, memberTarget, taggedTarget, userTarget, groupTarget or tagTarget
	name string
}

func selectorOf(t target) selector {
	switch t.kind {
	case anyTarget, memberTarget, taggedTarget:
		return selector{kind: t.kind}
	default:
		return selector{t.kind, t.name}
	}
}

// newProgram gives p its meaning under o.
func newProgram(p *Policy, o Options, f *faults) *program {
	pr := &program{options: o, policy: p, src: map[selector][]uint32{}, dst: map[selector][]uint32{}}
	for _, n := range o.Network {
		pr.network = append(pr.network, n.Masked())
	}
	pr.normalise(f)
	book := newPlaces(p, o, f)
	srcOf, dstOf := map[netip.Prefix][]uint32{}, map[netip.Prefix][]uint32{}
	for i := range pr.rules {
		r, n := &pr.rules[i], uint32(i)
		for _, t := range r.src {
			if book.has(t) {
				for _, x := range book.of(t) {
					appendRule(srcOf, x, n)
				}
			} else {
				appendRule(pr.src, selectorOf(t), n)
			}
		}
		for _, t := range r.dst {
			switch {
			case t.kind == selfTarget:
				pr.self = append(pr.self, n)
			case t.kind == anyTarget:
				for _, x := range everywhere {
					appendRule(dstOf, x, n)
				}
			case book.has(t):
				for _, x := range book.of(t) {
					appendRule(dstOf, x, n)
				}
			default:
				appendRule(pr.dst, selectorOf(t), n)
			}
		}
	}
	pr.self = slices.Compact(pr.self)
	for n := range pr.rules {
		pr.events = pr.rules[n].appendEvents(pr.events, n)
	}
	sortEvents(pr.events)
	pr.srcPrefixes, pr.srcSets = nest(srcOf, len(pr.rules))
	pr.dstPrefixes, pr.dstSets = nest(dstOf, len(pr.rules))
	return pr
}

var everywhere = [2]netip.Prefix{netip.PrefixFrom(netip.IPv4Unspecified(), 0), netip.PrefixFrom(netip.IPv6Unspecified(), 0)}

// dstEverywhere are the rules that lead to every address.
func (pr *program) dstEverywhere() (rules []uint32) {
	for n := range pr.rules {
		if slices.ContainsFunc(pr.rules[n].dst, func(t target) bool { return t.kind == anyTarget }) {
			rules = append(rules, uint32(n))
		}
	}
	return rules
}

// appendRule appends a rule's number, once: rules come in order.
func appendRule[K comparable](m map[K][]uint32, k K, n uint32) {
	list := m[k]
	if len(list) == 0 || list[len(list)-1] != n {
		m[k] = append(list, n)
	}
}

// normalise sorts what the grants say, so that every order of the text gives the same
// rules, and leaves repeated grants out.
func (pr *program) normalise(f *faults) {
	type part struct {
		key   string
		spans []span
		dst   []target
	}
	type whole struct {
		key   string
		grant *grant
		cond  cond
		src   []target
		parts []part
	}
	session := pr.options.Session
	var all []whole
	for _, g := range pr.policy.Entries() {
		w := whole{grant: g, cond: cond{mfa: session, hours: g.hours, expires: g.expires}, src: sortTargets(g.src)}
		switch {
		case g.off:
			w.cond.mfa = 0
		case g.mfa > session && !pr.options.Stored:
			f.errorf(g.mfaAt, "the code of %s is older than a session gets, %s: write at most that, or leave \"mfa\" out", g.mfa, session)
		case g.mfa > 0:
			w.cond.mfa = min(g.mfa, session)
		}
		bySpans, at := map[string]int{}, 0
		for i, d := range g.dst {
			if i == 0 || !slices.Equal(d.spans, g.dst[i-1].spans) {
				key := spansText(d.spans)
				if _, ok := bySpans[key]; !ok {
					bySpans[key] = len(w.parts)
					w.parts = append(w.parts, part{key: key, spans: d.spans})
				}
				at = bySpans[key]
			}
			w.parts[at].dst = append(w.parts[at].dst, d.target)
		}
		slices.SortFunc(w.parts, func(a, b part) int { return strings.Compare(a.key, b.key) })
		var b strings.Builder
		writeTargets(&b, w.src)
		b.WriteString(" -> ")
		for i := range w.parts {
			w.parts[i].dst = sortTargets(w.parts[i].dst)
			if i > 0 {
				b.WriteString("; ")
			}
			writeTargets(&b, w.parts[i].dst)
			b.WriteByte(' ')
			b.WriteString(w.parts[i].key)
		}
		b.WriteString(w.cond.text(session))
		w.key = b.String()
		all = append(all, w)
	}
	// Equal grants stay in the order of the text: the first one speaks for all.
	slices.SortStableFunc(all, func(a, b whole) int {
		return cmp.Or(strings.Compare(a.key, b.key), strings.Compare(a.grant.note, b.grant.note))
	})
	all = slices.CompactFunc(all, func(a, b whole) bool { return a.key == b.key && a.grant.note == b.grant.note })

	condIndex := map[string]uint32{}
	var texts []string
	for _, w := range all {
		if _, ok := condIndex[w.cond.text(session)]; !ok {
			condIndex[w.cond.text(session)] = 0
			texts = append(texts, w.cond.text(session))
		}
	}
	slices.Sort(texts)
	pr.conds = make([]cond, len(texts))
	for i, t := range texts {
		condIndex[t] = uint32(i)
	}
	for i, w := range all {
		c := condIndex[w.cond.text(session)]
		pr.conds[c] = w.cond
		line, column := pr.policy.Position(w.grant.at)
		pr.grants = append(pr.grants, GrantInfo{Line: line, Column: column, Text: w.key, Note: w.grant.note})
		var numbers []uint32
		for _, x := range w.parts {
			numbers = append(numbers, uint32(len(pr.rules)))
			pr.rules = append(pr.rules, rule{grant: i, cond: c, spans: x.spans, src: w.src, dst: x.dst})
		}
		pr.rulesOfGrant = append(pr.rulesOfGrant, numbers)
	}
}

// sortTargets sorts targets by their text and leaves repeated ones out.
func sortTargets(list []target) []target {
	type keyed struct {
		key string
		target
	}
	keys := make([]keyed, len(list))
	for i, t := range list {
		keys[i] = keyed{t.String(), t}
	}
	slices.SortFunc(keys, func(a, b keyed) int {
		return cmp.Or(strings.Compare(a.key, b.key), cmp.Compare(a.kind, b.kind), cmp.Compare(a.at.start, b.at.start))
	})
	keys = slices.CompactFunc(keys, func(a, b keyed) bool { return a.kind == b.kind && a.key == b.key })
	out := make([]target, len(keys))
	for i, k := range keys {
		out[i] = k.target
	}
	return out
}

func writeTargets(b *strings.Builder, list []target) {
	for i, t := range list {
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString(t.String())
	}
}

// nest gives every prefix the rules of all prefixes that contain it.
func nest(rulesOf map[netip.Prefix][]uint32, rules int) (list []placed[uint32], sets []set) {
	prefixes := make([]netip.Prefix, 0, len(rulesOf))
	for p := range rulesOf {
		prefixes = append(prefixes, p)
	}
	slices.SortFunc(prefixes, comparePrefixes)
	type frame struct {
		prefix netip.Prefix
		set    set
	}
	var stack []frame
	scratch := newScratch(rules)
	for _, p := range prefixes {
		for len(stack) > 0 && !stack[len(stack)-1].prefix.Contains(p.Addr()) {
			stack = stack[:len(stack)-1]
		}
		scratch.clear()
		if len(stack) > 0 {
			scratch.or(stack[len(stack)-1].set)
		}
		scratch.addAll(rulesOf[p])
		s := newSet(scratch)
		stack = append(stack, frame{p, s})
		list = append(list, placed[uint32]{p, uint32(len(sets))})
		sets = append(sets, s)
	}
	return list, sets
}

// Grants explain the numbers in Verdict.Grant.
func (r *Ruleset) Grants() []GrantInfo { return slices.Clone(r.c.grants) }

// Grant explains one number of Verdict.Grant; ok is false if it names none.
func (r *Ruleset) Grant(n int) (info GrantInfo, ok bool) {
	if n < 0 || n >= len(r.c.grants) {
		return GrantInfo{}, false
	}
	return r.c.grants[n], true
}
