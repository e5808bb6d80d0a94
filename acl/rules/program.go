package rules

import (
	"cmp"
	"net/netip"
	"slices"
	"strings"
	"time"

	"vpnd/acl/internal/bitset"
	"vpnd/acl/internal/ranges"
	"vpnd/acl/language"
)

// program is what a policy and the cluster's options say, whatever devices there are.
// It is immutable and shared by every Ruleset that With derives.
type program struct {
	options Options
	network []netip.Prefix
	policy  *language.Policy
	budget  *Budget
	at      []language.TextRange // of the grants

	grants []GrantInfo // normalised: the same for any order of the text
	rules  []rule
	conds  []Condition // sorted
	events []event     // of all rules, sorted

	src, dst     map[deviceKey][]uint32 // the rules that select devices so; sorted
	srcPrefixes  []mapped[uint32]       // prefix -> index into srcSets, of the rules that contain it all; sorted
	dstPrefixes  []mapped[uint32]
	srcSets      []bitset.Set
	dstSets      []bitset.Set
	services     []service
	self         []uint32 // the rules that lead to autogroup:self; sorted
	everywhere   []uint32 // the rules that lead to every address; sorted
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
	Grant int
	cond  uint32          // index into conds
	Spans []language.Span // sorted, disjoint
	Src   []language.Selector
	Dst   []language.Selector
}

// Condition is the condition of a grant.
type Condition struct {
	mfa     time.Duration   // 0: off
	hours   *language.Hours // nil: always
	expires time.Time       // zero: never
}

// Text is the condition as people read it; "" if it is the common one.
func (c *Condition) Text(session time.Duration) string {
	var s string
	switch {
	case c.mfa == 0:
		s = "; mfa off"
	case c.mfa < session:
		s = "; mfa " + language.DurationText(c.mfa)
	}
	if c.hours != nil {
		s += "; " + c.hours.String()
	}
	if !c.expires.IsZero() {
		s += "; expires " + c.expires.Format(time.RFC3339)
	}
	return s
}

// AsksCode tells whether a code must have been given, however long ago.
func (c *Condition) AsksCode() bool { return c.mfa > 0 }

// Outdoes tells whether c holds whenever o does.
func (c *Condition) Outdoes(o *Condition) bool {
	sameHours := c.hours == nil || o.hours != nil && c.hours.String() == o.hours.String()
	return sameHours && compareMFA(c.mfa, o.mfa) >= 0 && compareUntil(c.expires, o.expires) >= 0
}

// deviceKey is a way to select devices, as a map's key.
type deviceKey struct {
	kind language.SelectorKind // anyTarget, memberTarget, taggedTarget, userTarget, groupTarget or tagTarget
	name string
}

func deviceKeyOf(t language.Selector) deviceKey {
	switch t.Kind {
	case language.SelectAny, language.SelectMembers, language.SelectTagged:
		return deviceKey{kind: t.Kind}
	default:
		return deviceKey{t.Kind, t.Name}
	}
}

// newProgram gives p its meaning under o.
func newProgram(p *language.Policy, o Options, f *language.Faults) *program {
	pr := &program{options: o, policy: p, budget: budgetOf(p, o), src: map[deviceKey][]uint32{}, dst: map[deviceKey][]uint32{}}
	for _, n := range o.Network {
		pr.network = append(pr.network, n.Masked())
	}
	pr.normalise(f)
	if _, yes := pr.budget.Spent(); yes {
		return pr
	}
	pr.checkUpper(f)
	book := newAddressBook(p, o, pr.budget)
	srcOf, dstOf, to := map[netip.Prefix][]uint32{}, map[netip.Prefix][]uint32{}, map[string][]uint32{}
	for i := range pr.rules {
		r, n := &pr.rules[i], uint32(i)
		if !pr.spend(n, perRange*(len(r.Spans)+len(r.Src)+len(r.Dst))) {
			return pr
		}
		for _, t := range r.Src {
			if book.Has(t) {
				if !pr.addPrefixes(srcOf, book.Of(t), n) {
					return pr
				}
			} else {
				appendRule(pr.src, deviceKeyOf(t), n)
			}
		}
		for _, t := range r.Dst {
			switch {
			case t.Kind == language.SelectSelf:
				pr.self = append(pr.self, n)
			case t.Kind == language.SelectAny:
				pr.addPrefixes(dstOf, Everywhere[:], n)
				pr.everywhere = append(pr.everywhere, n)
			case t.Kind == language.SelectResource:
				appendRule(to, t.Name, n)
			case book.Has(t):
				if !pr.addPrefixes(dstOf, book.Of(t), n) {
					return pr
				}
			default:
				appendRule(pr.dst, deviceKeyOf(t), n)
			}
		}
	}
	pr.self = slices.Compact(pr.self)
	for n := range pr.rules {
		pr.events = pr.rules[n].appendEvents(pr.events, n)
	}
	sortEvents(pr.events)
	pr.srcPrefixes, pr.srcSets = pr.nest(srcOf)
	pr.dstPrefixes, pr.dstSets = pr.nest(dstOf)
	pr.publish(to)
	return pr
}

// Everywhere is all addresses.
var Everywhere = [2]netip.Prefix{netip.PrefixFrom(netip.IPv4Unspecified(), 0), netip.PrefixFrom(netip.IPv6Unspecified(), 0)}

// spend takes bytes from the budget for a rule.
func (pr *program) spend(rule uint32, bytes int) bool {
	return pr.budget.Spend(bytes, pr.at[pr.rules[rule].Grant])
}

// lastOf is where the grant of the last rule of a set stands.
func (pr *program) lastOf(s bitset.Set) language.TextRange {
	last, ok := s.Last()
	if !ok {
		return language.TextRange{}
	}
	return pr.at[pr.rules[last].Grant]
}

// addPrefixes appends a rule's number to the rules of prefixes.
func (pr *program) addPrefixes(of map[netip.Prefix][]uint32, list []netip.Prefix, n uint32) bool {
	for _, x := range list {
		bytes := perEntry
		if of[x] == nil {
			bytes = perPrefix
		}
		if !pr.spend(n, bytes) {
			return false
		}
		appendRule(of, x, n)
	}
	return true
}

// sameSpans tells whether two lists are equal; most often they are one.
func sameSpans(a, b []language.Span) bool {
	return len(a) > 0 && len(a) == len(b) && &a[0] == &b[0] || slices.Equal(a, b)
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
func (pr *program) normalise(f *language.Faults) {
	type part struct {
		key   string
		spans []language.Span
		src   []language.Selector // nil: the grant's
		dst   []language.Selector
	}
	type whole struct {
		key       string
		grant     *language.Grant
		Condition Condition
		src       []language.Selector
		parts     []part
	}
	session := pr.options.Session
	published := byPorts(pr.policy)
	var all []whole
	for _, g := range pr.policy.Grants() {
		w := whole{grant: g, Condition: Condition{mfa: session, hours: g.Hours, expires: g.Expires}, src: sortSelectors(g.Src)}
		switch {
		case g.Off:
			w.Condition.mfa = 0
		case g.MFA > session && !pr.options.Stored:
			f.Errorf(g.MFAAt, language.CodeBadMFA, "the code of %s is older than a session gets, %s: write at most that, or leave \"mfa\" out", g.MFA, session)
		case g.MFA > 0:
			w.Condition.mfa = min(g.MFA, session)
		}
		bySpans, at := map[string]int{}, 0
		for i, d := range g.Dst {
			if i == 0 || !sameSpans(d.Spans, g.Dst[i-1].Spans) {
				key := language.SpansText(d.Spans)
				if _, ok := bySpans[key]; !ok {
					bySpans[key] = len(w.parts)
					w.parts = append(w.parts, part{key: key, spans: d.Spans})
				}
				at = bySpans[key]
			}
			w.parts[at].dst = append(w.parts[at].dst, d.Selector)
		}
		slices.SortFunc(w.parts, func(a, b part) int { return strings.Compare(a.key, b.key) })
		var b strings.Builder
		writeSelectors(&b, w.src)
		b.WriteString(" -> ")
		for i := range w.parts {
			w.parts[i].dst = sortSelectors(w.parts[i].dst)
			if i > 0 {
				b.WriteString("; ")
			}
			writeSelectors(&b, w.parts[i].dst)
			b.WriteByte(' ')
			b.WriteString(w.parts[i].key)
		}
		b.WriteString(w.Condition.Text(session))
		w.key = b.String()
		for _, x := range w.parts {
			if !slices.ContainsFunc(x.dst, func(t language.Selector) bool { return t.Kind == language.SelectAny }) {
				continue
			}
			// Everything is every resource, too, on its own ports.
			devices := slices.DeleteFunc(slices.Clone(w.src), isPlace)
			for _, p := range published {
				if common := p.resources[0].Common(x.spans); len(common) > 0 && len(devices) > 0 {
					if !pr.budget.Spend(perRange*(len(p.selectors)+len(common)), g.At) {
						return
					}
					w.parts = append(w.parts, part{spans: common, src: devices, dst: p.selectors})
				}
			}
		}
		all = append(all, w)
	}
	// Equal grants stay in the order of the text: the first one speaks for all.
	slices.SortStableFunc(all, func(a, b whole) int {
		return cmp.Or(strings.Compare(a.key, b.key), strings.Compare(a.grant.Note, b.grant.Note))
	})
	all = slices.CompactFunc(all, func(a, b whole) bool { return a.key == b.key && a.grant.Note == b.grant.Note })

	condIndex := map[string]uint32{}
	var texts []string
	for _, w := range all {
		if _, ok := condIndex[w.Condition.Text(session)]; !ok {
			condIndex[w.Condition.Text(session)] = 0
			texts = append(texts, w.Condition.Text(session))
		}
	}
	slices.Sort(texts)
	pr.conds = make([]Condition, len(texts))
	for i, t := range texts {
		condIndex[t] = uint32(i)
	}
	for i, w := range all {
		c := condIndex[w.Condition.Text(session)]
		pr.conds[c] = w.Condition
		line, column := pr.policy.Position(w.grant.At)
		pr.at = append(pr.at, w.grant.At)
		pr.grants = append(pr.grants, GrantInfo{Line: line, Column: column, Text: w.key, Note: w.grant.Note})
		var numbers []uint32
		for _, x := range w.parts {
			numbers = append(numbers, uint32(len(pr.rules)))
			src := w.src
			if x.src != nil {
				src = x.src
			}
			pr.rules = append(pr.rules, rule{Grant: i, cond: c, Spans: x.spans, Src: src, Dst: x.dst})
		}
		pr.rulesOfGrant = append(pr.rulesOfGrant, numbers)
	}
}

// sortSelectors sorts selectors by their text and leaves repeated ones out.
func sortSelectors(list []language.Selector) []language.Selector {
	type keyed struct {
		key string
		language.Selector
	}
	keys := make([]keyed, len(list))
	for i, t := range list {
		keys[i] = keyed{t.String(), t}
	}
	slices.SortFunc(keys, func(a, b keyed) int {
		return cmp.Or(strings.Compare(a.key, b.key), cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.At.Start, b.At.Start))
	})
	keys = slices.CompactFunc(keys, func(a, b keyed) bool { return a.Kind == b.Kind && a.key == b.key })
	out := make([]language.Selector, len(keys))
	for i, k := range keys {
		out[i] = k.Selector
	}
	return out
}

func writeSelectors(b *strings.Builder, list []language.Selector) {
	for i, t := range list {
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString(t.String())
	}
}

// nest gives every prefix the rules of all prefixes that contain it.
func (pr *program) nest(rulesOf map[netip.Prefix][]uint32) (list []mapped[uint32], sets []bitset.Set) {
	prefixes := make([]netip.Prefix, 0, len(rulesOf))
	for p := range rulesOf {
		prefixes = append(prefixes, p)
	}
	slices.SortFunc(prefixes, ranges.ComparePrefixes)
	type frame struct {
		prefix netip.Prefix
		Set    bitset.Set
	}
	var stack []frame
	scratch := bitset.NewScratch(len(pr.rules))
	for _, p := range prefixes {
		for len(stack) > 0 && !stack[len(stack)-1].prefix.Contains(p.Addr()) {
			stack = stack[:len(stack)-1]
		}
		scratch.Clear()
		if len(stack) > 0 {
			scratch.Or(stack[len(stack)-1].Set)
		}
		own := rulesOf[p]
		scratch.AddAll(own)
		if !pr.spend(own[len(own)-1], perSet+8*len(scratch)) {
			return nil, nil
		}
		s := bitset.New(scratch)
		stack = append(stack, frame{p, s})
		list = append(list, mapped[uint32]{p, uint32(len(sets))})
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
