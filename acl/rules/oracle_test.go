package rules_test

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"reflect"
	"slices"
	"testing"
	"time"

	"vpnd/acl/acltest"
	"vpnd/acl/rules"
)

// lookups are the tables of a Ruleset as the linux plane takes them.
type lookups struct {
	r            *rules.Ruleset
	sources      []rules.PrefixRole
	destinations []rules.PrefixZone
	allows       map[time.Time][]rules.Allow
}

func lookupsOf(r *rules.Ruleset) *lookups {
	return &lookups{r, r.Sources(), r.Destinations(), map[time.Time][]rules.Allow{}}
}

// allow judges a packet the way the linux plane does: by the lookups alone.
func (l *lookups) allow(p rules.Packet, now time.Time) bool {
	r := l.r
	if l.allows[now] == nil {
		l.allows[now] = r.Allows(now)
	}
	role, _, srcDev := r.Device(p.Src)
	if !srcDev {
		for _, x := range l.sources {
			if x.Prefix.Contains(p.Src) {
				role = x.Role
			}
		}
	}
	_, zone, dstDev := r.Device(p.Dst)
	if !dstDev {
		for _, x := range l.destinations {
			if x.Prefix.Contains(p.Dst) {
				zone = x.Zone
			}
		}
	} else if t := r.Twin(zone); t != 0 && slices.Contains(r.Siblings(p.Dst), p.Src) {
		zone = t
	}
	var class rules.ClassID
	for z, ports := range r.Zones() {
		if z != zone {
			continue
		}
		for _, x := range ports {
			if x.Proto == p.Proto && x.First <= p.DstPort && p.DstPort <= x.Last {
				class = x.Class
			}
		}
	}
	if role == 0 || class == 0 {
		return false
	}
	for _, a := range l.allows[now] {
		if a.Role != role || a.Class != class || !a.Until.IsZero() && !now.Before(a.Until) {
			continue
		}
		if a.MFA == 0 {
			return true
		}
		session := p.SrcSession
		if !srcDev {
			session = p.DstSession
		}
		if !srcDev && !dstDev || !session.Until.After(now) || a.MFA < 12*time.Hour && !session.Code.Add(a.MFA).After(now) {
			continue
		}
		if srcDev && dstDev && !p.DstSession.Until.After(now) {
			continue
		}
		return true
	}
	return false
}

// disagreement compares Verdict and the lookups with the naive reading, for packets that
// a seed makes, and says where they part.
func disagreement(w *acltest.World, seed uint64, packets int) string {
	r, err := w.Compile()
	if err != nil {
		return "does not compile: " + err.Error()
	}
	l := lookupsOf(r)
	rng := rand.New(rand.NewPCG(seed, 1))
	addrs := w.Addrs()
	for _, now := range w.Times(rng) {
		for range packets {
			p := w.Packet(rng, addrs, now)
			want := w.Judge(p, now)
			v := r.Verdict(p, now)
			if v.Allow != want || v.Allow != (v.Reason == rules.Allowed) {
				return fmt.Sprintf("%s: %+v: naive %v, verdict %+v", now, p, want, v)
			}
			if got := l.allow(p, now); got != want {
				return fmt.Sprintf("%s: %+v: naive %v, lookups %v", now, p, want, got)
			}
			if v.Allow && !v.Until.IsZero() {
				// It holds until Until, and then no longer by the same grant.
				if after := r.Verdict(p, v.Until); !w.Judge(p, v.Until.Add(-1)) || after.Allow && after.Grant == v.Grant {
					return fmt.Sprintf("%s: %+v: Until %s is wrong: before %v, then %+v", now, p, v.Until, w.Judge(p, v.Until.Add(-1)), after)
				}
			}
			if v.Grant >= 0 {
				if _, ok := r.Grant(v.Grant); !ok {
					return fmt.Sprintf("%+v: no grant %d", p, v.Grant)
				}
			} else if v.Reason != rules.NoGrant {
				return fmt.Sprintf("%+v: %+v names no grant", p, v)
			}
		}
		if next := r.Next(now); !next.IsZero() && !next.After(now) {
			return fmt.Sprintf("Next(%s) is %s", now, next)
		}
	}
	return ""
}

func TestOracle(t *testing.T) {
	t.Parallel()
	worlds := 250
	if testing.Short() {
		worlds = 50
	}
	allowed, asked := 0, 0
	for seed := range uint64(worlds) {
		rng := rand.New(rand.NewPCG(seed, 0))
		w := acltest.Random(rng, 1+rng.IntN(12))
		addrs := w.Addrs()
		for range 50 {
			asked++
			if w.Judge(w.Packet(rng, addrs, acltest.Now), acltest.Now) {
				allowed++
			}
		}
		if what := disagreement(w, seed, 40); what != "" {
			w = acltest.Shrink(w, func(w *acltest.World) bool { return disagreement(w, seed, 40) != "" })
			t.Fatalf("seed %d: %s\n%s%v", seed, disagreement(w, seed, 40), w.Text(), w.Subjects)
		}
	}
	if allowed < asked/30 || allowed > asked*29/30 {
		t.Errorf("of %d random packets %d are allowed: the worlds show nothing", asked, allowed)
	}
}

// TestNext walks from change to change: between two of them Allows says the same.
func TestNext(t *testing.T) {
	t.Parallel()
	for seed := range uint64(100) {
		rng := rand.New(rand.NewPCG(seed, 2))
		w := acltest.Random(rng, 8)
		r, err := w.Compile()
		if err != nil {
			t.Fatal(err)
		}
		now := acltest.Now
		for range 20 {
			next := r.Next(now)
			if next.IsZero() {
				next = now.Add(24 * time.Hour)
			}
			for range 5 {
				between := now.Add(time.Duration(rng.Int64N(int64(next.Sub(now)))))
				if a, b := r.Allows(now), r.Allows(between); !slices.Equal(a, b) {
					t.Fatalf("seed %d: Allows differs between %s and %s, before Next %s:\n%v\n%v\n%s", seed, now, between, next, a, b, w.Text())
				}
			}
			now = next
		}
	}
}

// said is what a Ruleset says of its devices, without its numbers.
type said struct {
	Packets  []rules.Packet
	Verdicts []rules.Verdict
	Siblings [][]netip.Addr
	Reaches  [][]rules.Reach
}

func semantics(w *acltest.World, r *rules.Ruleset) (s said) {
	rng := rand.New(rand.NewPCG(7, 7))
	addrs := w.Addrs()
	for range 200 {
		p := w.Packet(rng, addrs, acltest.Now)
		s.Packets, s.Verdicts = append(s.Packets, p), append(s.Verdicts, r.Verdict(p, acltest.Now))
	}
	for _, a := range addrs {
		if _, _, ok := r.Device(a); !ok {
			continue
		}
		s.Siblings = append(s.Siblings, r.Siblings(a))
		s.Reaches = append(s.Reaches, r.Reaches(a, rules.Session{Until: acltest.Now.Add(time.Hour), Code: acltest.Now}, acltest.Now))
	}
	return s
}

// TestWith adds and removes devices step by step; each step says the same as a fresh
// compile, and what came before is untouched.
func TestWith(t *testing.T) {
	t.Parallel()
	for seed := range uint64(12) {
		rng := rand.New(rand.NewPCG(seed, 3))
		w := acltest.Random(rng, 8)
		all := w.Subjects
		w.Subjects = nil
		r, err := w.Compile()
		if err != nil {
			t.Fatal(err)
		}
		for step := range 12 {
			before, old := r, semantics(w, r)
			s := all[rng.IntN(len(all))]
			kept := slices.DeleteFunc(slices.Clone(w.Subjects), func(x rules.Subject) bool { return x.Device == s.Device })
			present := len(kept) != len(w.Subjects)
			was := *w
			if present && rng.IntN(3) > 0 {
				r = r.With(nil, s.Addrs)
				w.Subjects = kept
			} else {
				s.User = []string{"alice", "bob"}[rng.IntN(2)] // changes hands
				if present && rng.IntN(2) == 0 {
					r = r.With([]rules.Subject{s}, s.Addrs)
				} else {
					r = r.With([]rules.Subject{s}, nil)
				}
				w.Subjects = append(kept, s)
			}
			fresh, err := w.Compile()
			if err != nil {
				t.Fatal(err)
			}
			if a, b := semantics(w, r), semantics(w, fresh); !reflect.DeepEqual(a, b) {
				t.Fatalf("seed %d step %d: With and Compile differ\n%s\n%v\ngot  %v\nwant %v", seed, step, w.Text(), w.Subjects, a, b)
			}
			l := lookupsOf(r)
			for range 50 {
				p := w.Packet(rng, w.Addrs(), acltest.Now)
				if l.allow(p, acltest.Now) != w.Judge(p, acltest.Now) {
					t.Fatalf("seed %d step %d: lookups after With are wrong for %+v\n%s", seed, step, p, w.Text())
				}
			}
			if !reflect.DeepEqual(semantics(&was, before), old) {
				t.Fatalf("seed %d step %d: With changed the Ruleset it came from", seed, step)
			}
			if before.Shape() == r.Shape() && !sameTables(before, r) {
				t.Fatalf("seed %d step %d: same Shape, other tables", seed, step)
			}
		}
	}
}

func sameTables(a, b *rules.Ruleset) bool {
	text := func(r *rules.Ruleset) string {
		s := fmt.Sprint(r.Sources(), r.Destinations(), r.Allows(acltest.Now))
		for z, p := range r.Zones() {
			s += fmt.Sprint(z, p, r.Twin(z))
		}
		return s
	}
	return text(a) == text(b)
}

// TestOrder compiles the same grants and devices in another order.
func TestOrder(t *testing.T) {
	t.Parallel()
	for seed := range uint64(60) {
		rng := rand.New(rand.NewPCG(seed, 4))
		w := acltest.Random(rng, 10)
		x := *w
		x.Grants, x.Subjects = slices.Clone(w.Grants), slices.Clone(w.Subjects)
		rng.Shuffle(len(x.Subjects), func(i, j int) { x.Subjects[i], x.Subjects[j] = x.Subjects[j], x.Subjects[i] })
		rng.Shuffle(len(x.Grants), func(i, j int) { x.Grants[i], x.Grants[j] = x.Grants[j], x.Grants[i] })
		for i := range x.Grants {
			g := &x.Grants[i]
			g.Src = slices.Clone(g.Src)
			rng.Shuffle(len(g.Src), func(i, j int) { g.Src[i], g.Src[j] = g.Src[j], g.Src[i] })
			if !g.ACL {
				g.Dst = slices.Clone(g.Dst)
				rng.Shuffle(len(g.Dst), func(i, j int) { g.Dst[i], g.Dst[j] = g.Dst[j], g.Dst[i] })
			}
		}
		a, err := w.Compile()
		if err != nil {
			t.Fatal(err)
		}
		b, err := x.Compile()
		if err != nil {
			t.Fatal(err)
		}
		if a.Shape() != b.Shape() || !sameTables(a, b) || !reflect.DeepEqual(semantics(w, a), semantics(w, b)) {
			t.Fatalf("seed %d: two orders, two Rulesets:\n%s\n%s", seed, w.Text(), x.Text())
		}
		for _, addr := range w.Addrs() {
			r1, z1, ok1 := a.Device(addr)
			r2, z2, ok2 := b.Device(addr)
			if r1 != r2 || z1 != z2 || ok1 != ok2 {
				t.Fatalf("seed %d: %s has role %d and zone %d, in another order %d and %d", seed, addr, r1, z1, r2, z2)
			}
		}
	}
}
