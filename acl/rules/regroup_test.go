package rules_test

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"vpnd/acl/acltest"
	"vpnd/acl/language"
	"vpnd/acl/review"
	"vpnd/acl/rules"
)

// regrouper is a world whose groups are edited, with the Ruleset that follows by Regroup.
type regrouper struct {
	world *acltest.World
	lists map[string]string // of the groups that were edited, as the text has them
	rules *rules.Ruleset
}

// text is the world's, with the lists as they were written.
func (g *regrouper) text() string {
	lines := strings.Split(string(g.world.Text()), "\n")
	for i, line := range lines {
		name, _, ok := strings.Cut(strings.TrimSpace(line), `": [`)
		if list := g.lists[strings.TrimPrefix(name, `"`)]; ok && list != "" {
			lines[i] = "    " + name + `": ` + list + ","
		}
	}
	return strings.Join(lines, "\n")
}

// compile is the long way.
func (g *regrouper) compile(t *testing.T) *rules.Ruleset {
	t.Helper()
	p, err := language.Parse([]byte(g.text()))
	if err != nil {
		t.Fatalf("%v\n%s", err, g.text())
	}
	o := g.world.Options
	o.Stored = true
	r, err := rules.Compile(p, o, g.world.Subjects)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// edit adds people to a group, or takes some out of it, and writes its list in some style.
func (g *regrouper) edit(rng *rand.Rand) {
	names := []string{"alice", "bob", "carol", "dave", "eve", "mallory"}
	name := fmt.Sprintf("group:g%d", rng.IntN(len(g.world.Groups)))
	list := slices.Clone(g.world.Groups[name])
	for range 1 + rng.IntN(2) {
		people := slices.DeleteFunc(slices.Clone(list), func(s string) bool { return strings.HasPrefix(s, "group:") })
		if len(people) > 0 && rng.IntN(2) == 0 {
			gone := people[rng.IntN(len(people))]
			list = slices.DeleteFunc(list, func(s string) bool { return s == gone })
		} else {
			list = slices.Insert(list, rng.IntN(len(list)+1), names[rng.IntN(len(names))])
		}
	}
	g.world.Groups[name] = list
	var b strings.Builder
	b.WriteString("[")
	for i, m := range list {
		if !strings.HasPrefix(m, "group:") {
			m = []string{m, m + "@", strings.ToUpper(m)}[rng.IntN(3)]
		}
		comma := ","
		if i == len(list)-1 && rng.IntN(2) == 0 {
			comma = ""
		}
		fmt.Fprintf(&b, "%s%q%s%s", []string{"", " ", "\n\t", "\n// who? ]\n", "/* ], */"}[rng.IntN(5)], m, []string{"", " "}[rng.IntN(2)], comma)
	}
	b.WriteString([]string{"", "\n", " /* \" */ "}[rng.IntN(3)] + "]")
	g.lists[name] = b.String()
}

// TestRegroup edits groups at random and holds what Regroup derives against what Parse and
// Compile make of the same text.
func TestRegroup(t *testing.T) {
	const rounds = 40
	short := 0
	for seed := range rounds {
		rng := rand.New(rand.NewPCG(uint64(seed), 5))
		g := &regrouper{world: acltest.Random(rng, 1+rng.IntN(12)), lists: map[string]string{}}
		if seed%2 == 0 { // grants by groups are what it is about
			g.world.Grants = append(g.world.Grants,
				acltest.Grant{Src: []string{"group:g3"}, Dst: []string{"group:g1", "10.1.0.0/16"}, IP: []string{"tcp:22"}, MFA: "15m"},
				acltest.Grant{Src: []string{"group:g1", "group:g2"}, Dst: []string{"autogroup:self", "h0"}, IP: []string{"udp:1-100"}})
			g.world.Grants[len(g.world.Grants)-1].Src = []string{"group:g1"}
		}
		g.rules = g.compile(t)
		for range 8 {
			last := g.text()
			g.edit(rng)
			if rng.IntN(4) == 0 { // a device changes hands meanwhile
				s := &g.world.Subjects[rng.IntN(len(g.world.Subjects))]
				s.User, s.Tags = []string{"alice", "bob", "eve"}[rng.IntN(3)], nil
				g.rules = g.rules.With([]rules.Subject{*s}, nil)
			}
			full := g.compile(t)
			next, users, ok := g.rules.Regroup(g.text())
			if !ok {
				if g.text() != last {
					t.Fatalf("seed %d: the edit is not taken:\n%s\nwas\n%s", seed, g.text(), last)
				}
				continue
			}
			short++
			var put []rules.Subject
			for _, s := range g.world.Subjects {
				if slices.Contains(users, strings.ToLower(s.User)) {
					put = append(put, s)
				}
			}
			g.rules = next.With(put, nil)
			g.same(t, rng, full)
			if t.Failed() {
				t.Fatalf("seed %d, users %v\n%s", seed, users, g.text())
			}
		}
	}
	if short < 5*rounds {
		t.Errorf("only %d edits of %d rounds went the short way", short, rounds)
	}
}

// same compares everything that a Ruleset answers.
func (g *regrouper) same(t *testing.T, rng *rand.Rand, full *rules.Ruleset) {
	t.Helper()
	r := g.rules
	if got, want := meaning(r, g.world), meaning(full, g.world); got != want {
		t.Errorf("got\n%s\nwant\n%s", firstLine(got, want), firstLine(want, got))
	}
	if got, want := fmt.Sprint(r.Warnings()), fmt.Sprint(full.Warnings()); got != want {
		t.Errorf("warnings: got %s, want %s", got, want)
	}
	addrs, lookups := g.world.Addrs(), lookupsOf(r)
	for range 50 {
		p := g.world.Packet(rng, addrs, acltest.Now)
		if got, want := lookups.allow(p, acltest.Now), g.world.Judge(p, acltest.Now); got != want {
			t.Errorf("%+v: lookups %v, naive %v", p, got, want)
		}
		if got, want := r.Verdict(p, acltest.Now), full.Verdict(p, acltest.Now); got != want {
			t.Errorf("%+v: got %+v, want %+v", p, got, want)
		}
		if got, want := fmt.Sprint(review.Explain(r, p, acltest.Now)), fmt.Sprint(review.Explain(full, p, acltest.Now)); got != want {
			t.Errorf("%+v: got %s, want %s", p, got, want)
		}
	}
}

// firstLine is the first line in which a is not b.
func firstLine(a, b string) string {
	other := strings.Split(b, "\n")
	for i, line := range strings.Split(a, "\n") {
		if i >= len(other) || line != other[i] {
			return line
		}
	}
	return ""
}

// meaning is Dump, but for the numbers of roles, zones and classes: a role is told by what
// it may do, a zone by its ports and their classes, and a class by who may do what.
func meaning(r *rules.Ruleset, w *acltest.World) string {
	var b strings.Builder
	roles := map[rules.RoleID]bool{0: true}
	for _, s := range w.Subjects {
		for _, a := range s.Addrs {
			role, _, _ := r.Device(a)
			roles[role] = true
		}
	}
	for _, s := range r.Sources() {
		roles[s.Role] = true
	}
	// Who may use a class: of the roles that are in use, by name.
	names := map[rules.RoleID][]string{}
	for _, s := range w.Subjects {
		for _, a := range s.Addrs {
			role, _, _ := r.Device(a)
			names[role] = append(names[role], a.String())
		}
	}
	for _, s := range r.Sources() {
		names[s.Role] = append(names[s.Role], s.Prefix.String())
	}
	classes := map[rules.ClassID]string{}
	for _, a := range r.Allows(acltest.Now) {
		if roles[a.Role] {
			slices.Sort(names[a.Role])
			classes[a.Class] += fmt.Sprintf("%v %v %v;", names[a.Role], a.MFA, a.Until.Format(time.RFC3339))
		}
	}
	for c, s := range classes {
		parts := strings.Split(s, ";")
		slices.Sort(parts)
		classes[c] = strings.Join(parts, ";")
	}
	zones := map[rules.ZoneID]string{}
	for z, ports := range r.Zones() {
		for _, p := range ports {
			if classes[p.Class] != "" {
				zones[z] += fmt.Sprintf(" %d:%d-%d=%s", p.Proto, p.First, p.Last, classes[p.Class])
			}
		}
	}
	for _, s := range w.Subjects {
		for _, a := range s.Addrs {
			_, zone, _ := r.Device(a)
			fmt.Fprintf(&b, "%s %s zone%s\n", a, s.User, zones[zone])
			if list := r.Siblings(a); len(list) > 0 {
				fmt.Fprintf(&b, "  for %v%s\n", list, zones[cmp.Or(r.Twin(zone), zone)])
			}
		}
	}
	for _, d := range r.Destinations() {
		fmt.Fprintf(&b, "%s zone%s\n", d.Prefix, zones[d.Zone])
	}
	for _, x := range r.Grants() {
		fmt.Fprintf(&b, "%+v\n", x)
	}
	for _, s := range w.Subjects {
		fmt.Fprintf(&b, "%s reaches %v\n", s.Device, r.Reaches(s.Addrs[0], rules.Session{Until: acltest.Now.Add(time.Hour), Code: acltest.Now}, acltest.Now))
	}
	return b.String()
}

// TestRegroupRefuses: whatever is not one group's people alone goes the long way.
func TestRegroupRefuses(t *testing.T) {
	const head, tail = `{"groups": {"group:a": ["u", "group:c"], "group:b": `, `, "group:c": []}, "grants": [{"src": ["group:a"], "dst": ["app"], "ip": ["1"]}]}`
	compile := func(text string, stored bool) *rules.Ruleset {
		p, err := language.Parse([]byte(text))
		if err != nil {
			t.Fatal(err)
		}
		o := benchOptions
		o.Stored = stored
		r, err := rules.Compile(p, o, []rules.Subject{{Device: "d", User: "u", Addrs: []netip.Addr{deviceAddr(1, true)}}})
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	base := head + `["v"]` + tail
	for _, test := range []struct {
		name, text string
		ok         bool
	}{
		{"somebody more", head + `["v", "w"]` + tail, true},
		{"nobody", head + `[]` + tail, true},
		{"somebody else", head + `["w"]` + tail, true},
		{"a comma", head + `["v",]` + tail, true},
		{"a comment that ends", head + `["v"/* ] */]` + tail, true},
		{"the same", base, false},
		{"a group more", head + `["v", "group:c"]` + tail, false},
		{"a prefix", head + `["10.0.0.0/8"]` + tail, false},
		{"no user", head + `["a b"]` + tail, false},
		{"a number", head + `[7]` + tail, false},
		{"not a list", head + `"v"` + tail, false},
		{"no comma", head + `["v" "w"]` + tail, false},
		{"two lists", head + `["v"], "group:d": ["w"]` + tail, false},
		{"a list and a comment", head + `["v"] /* ["w"] */` + tail, false},
		{"a list and a comment that hides the rest", head + `["w"] // ]` + tail, false},
		{"a string that does not end", head + `["v]` + tail, false},
		{"a nested list", head + `[["v"]]` + tail, false},
		{"two groups", strings.Replace(head, `"u"`, `"x"`, 1) + `["w"]` + tail, false},
		{"a grant", strings.Replace(base, `"1"`, `"2"`, 1), false},
		{"a group's name", strings.Replace(base, "group:b", "group:x", 1), false},
		{"less", base[:len(base)-1], false},
		{"nothing", "", false},
	} {
		if _, _, ok := compile(base, true).Regroup(test.text); ok != test.ok {
			t.Errorf("%s: %v, want %v", test.name, ok, test.ok)
		}
	}
	if _, _, ok := compile(base, false).Regroup(head + `["v", "w"]` + tail); ok {
		t.Error("a policy whose names count is taken")
	}
	// Somebody who is in a group through another one anyway has moved nowhere.
	r, users, ok := compile(head+`["v"]`+tail, true).Regroup(strings.Replace(base, `"group:c": []`, `"group:c": ["u", "x"]`, 1))
	if !ok || fmt.Sprint(users) != "[u x]" {
		t.Fatalf("users %v, %v", users, ok)
	}
	if r, users, ok = r.Regroup(strings.Replace(base, `"group:c": []`, `"group:c": ["x"]`, 1)); !ok || fmt.Sprint(users) != "[u]" {
		t.Errorf("users %v, %v", users, ok)
	}
	// What nobody has any more is not kept for ever.
	for i := range 2000 {
		next, users, ok := r.Regroup(head + fmt.Sprintf(`["u%d"]`, i) + tail)
		if !ok {
			return
		}
		var put []rules.Subject
		for _, u := range users {
			put = append(put, rules.Subject{Device: u, User: u, Addrs: []netip.Addr{deviceAddr(7, true)}})
		}
		r = next.With(put, nil)
	}
}

// growth is Zones and Allows by what they say, with roles, zones and classes by number: of
// one Ruleset after the other they are the same.
type growth struct {
	zones  map[rules.ZoneID]string
	allows map[rules.Allow]bool
}

func growthOf(r *rules.Ruleset) growth {
	g := growth{map[rules.ZoneID]string{}, map[rules.Allow]bool{}}
	for z, ports := range r.Zones() {
		g.zones[z] = fmt.Sprint(ports)
	}
	for _, a := range r.Allows(acltest.Now) {
		g.allows[a] = true
	}
	return g
}

// TestGrowth: what was, and what Growth says, is what is.
func TestGrowth(t *testing.T) {
	grown, lost := 0, 0
	for seed := range 80 {
		rng := rand.New(rand.NewPCG(uint64(seed), 6))
		g := &regrouper{world: acltest.Random(rng, 3+rng.IntN(12)), lists: map[string]string{}}
		g.world.Grants = append(g.world.Grants, acltest.Grant{Src: []string{"group:g3", "eve"}, Dst: []string{"group:g1", "eve", "autogroup:self"}, IP: []string{"tcp:22", "udp:7"}, MFA: "15m"})
		first := g.compile(t)
		g.rules = first
		for range 6 {
			before := g.rules
			g.edit(rng)
			s := &g.world.Subjects[rng.IntN(len(g.world.Subjects))]
			s.User, s.Tags = []string{"alice", "bob", "eve"}[rng.IntN(3)], nil
			put := []rules.Subject{*s}
			if next, users, ok := g.rules.Regroup(g.text()); ok {
				g.rules = next
				for _, s := range g.world.Subjects {
					if slices.Contains(users, s.User) {
						put = append(put, s)
					}
				}
			}
			g.rules = g.rules.With(put, nil)
			for _, old := range []*rules.Ruleset{before, first} {
				was, is := growthOf(old), growthOf(g.rules)
				zones, allows, ok := g.rules.Growth(old, acltest.Now)
				if !ok {
					t.Fatalf("seed %d: not an extension", seed)
				}
				grown += len(zones) + len(allows)
				all := growthOf(g.rules)
				for _, z := range zones {
					was.zones[z] = all.zones[z]
				}
				for _, a := range allows {
					was.allows[a] = true
				}
				if fmt.Sprint(was) != fmt.Sprint(is) {
					t.Fatalf("seed %d: grown\n%v\nis\n%v", seed, was, is)
				}
			}
			// Whoever loses nothing is refused nothing that was allowed.
			addrs := g.world.Addrs()
			for range 100 {
				p := g.world.Packet(rng, addrs, acltest.Now)
				if before.Verdict(p, acltest.Now).Allow && !g.rules.Verdict(p, acltest.Now).Allow {
					lost++
					if !g.rules.Loses(before, p.Src) && !g.rules.Loses(before, p.Dst) {
						t.Fatalf("seed %d: %+v is refused, and neither end loses", seed, p)
					}
				}
			}
		}
		if other := g.compile(t); fmt.Sprint(growthOf(other)) != fmt.Sprint(growthOf(first)) {
			if _, _, ok := other.Growth(first, acltest.Now); ok {
				t.Errorf("seed %d: another Compile passes for an extension", seed)
			}
		}
	}
	if grown < 300 || lost < 10 {
		t.Errorf("%d entries have grown, %d packets were lost: the worlds are too small", grown, lost)
	}
	// Two that went apart.
	g := &regrouper{world: acltest.Random(rand.New(rand.NewPCG(1, 1)), 0), lists: map[string]string{}}
	for i := range 9 {
		g.world.Grants = append(g.world.Grants, acltest.Grant{Src: []string{fmt.Sprintf("x%d", i)}, Dst: []string{"10.1.0.0/16"}, IP: []string{"1"}})
	}
	base := g.compile(t)
	with := func(r *rules.Ruleset, n int) *rules.Ruleset {
		return r.With([]rules.Subject{{Device: "d", User: fmt.Sprintf("x%d", n), Addrs: []netip.Addr{deviceAddr(100+n, true)}}}, nil)
	}
	if _, allows, ok := with(with(base, 1), 2).Growth(with(base, 1), acltest.Now); ok {
		t.Errorf("two that went apart pass for one after the other: %v", allows)
	}
	one := with(base, 1)
	if _, allows, ok := with(one, 2).Growth(one, acltest.Now); !ok || len(allows) == 0 {
		t.Errorf("one after the other: %v %v", allows, ok)
	}
}
