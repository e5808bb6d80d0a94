package acltest_test

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"vpnd/acl/acltest"
	"vpnd/acl/rules"
)

// enforcers that are wrong on purpose: each in one way.
var enforcers = map[string]func(r *rules.Ruleset, p rules.Packet, now time.Time) bool{
	"a port off by one": func(r *rules.Ruleset, p rules.Packet, now time.Time) bool {
		p.DstPort++
		return r.Verdict(p, now).Allow
	},
	"blind to the code's age": func(r *rules.Ruleset, p rules.Packet, now time.Time) bool {
		p.SrcSession.Code, p.DstSession.Code = now, now
		return r.Verdict(p, now).Allow
	},
	"deaf to ends": func(r *rules.Ruleset, p rules.Packet, now time.Time) bool {
		return r.Verdict(p, now.Add(-48*time.Hour)).Allow
	},
	"the other end's session is not asked": func(r *rules.Ruleset, p rules.Packet, now time.Time) bool {
		p.DstSession.Until = now.Add(time.Hour)
		return r.Verdict(p, now).Allow
	},
}

// TestShrink: an enforcer that is wrong is found out, and what is left of the world is one
// grant that shows it.
func TestShrink(t *testing.T) {
	t.Parallel()
	for name, enforce := range enforcers {
		t.Run(name, func(t *testing.T) {
			w, p, seed := disagreement(t, enforce)
			fails := func(w *acltest.World) bool {
				r, err := w.Compile()
				if err != nil {
					t.Fatalf("shrinking made a world that does not compile: %v\n%s", err, w.Text())
				}
				return enforce(r, p, acltest.Now) != r.Verdict(p, acltest.Now).Allow
			}
			small := acltest.Shrink(w, fails)
			if !fails(small) {
				t.Fatalf("what is left does not show the fault:\n%s", small.Text())
			}
			if len(small.Grants) != 1 || len(small.Subjects) > 2 {
				t.Fatalf("%d grants and %d devices are left:\n%s", len(small.Grants), len(small.Subjects), small.Text())
			}
			g := small.Grants[0]
			if len(g.Src) != 1 || len(g.Dst) != 1 || len(g.IP) != 1 || strings.Contains(g.IP[0], ",") {
				t.Errorf("the grant that is left could be smaller: %+v", g)
			}
			members := 0
			for _, m := range small.Groups {
				members += len(m)
			}
			if members > 4 { // a chain of nested groups down to one person
				t.Errorf("the groups that are left could be smaller: %v", small.Groups)
			}
			report := acltest.Report(w, seed, p, acltest.Now, fails)
			for _, want := range []string{fmt.Sprintf("seed %d", seed), p.Src.String(), p.Dst.String(), string(small.Text())} {
				if !strings.Contains(report, want) {
					t.Errorf("the report lacks %q:\n%s", want, report)
				}
			}
		})
	}
}

// disagreement finds a world and a packet for which enforce is wrong.
func disagreement(t *testing.T, enforce func(*rules.Ruleset, rules.Packet, time.Time) bool) (*acltest.World, rules.Packet, uint64) {
	t.Helper()
	for seed := range uint64(100) {
		rng := rand.New(rand.NewPCG(seed, 0))
		w := acltest.Random(rng, 10)
		r, err := w.Compile()
		if err != nil {
			t.Fatal(err)
		}
		addrs := w.Addrs()
		for range 200 {
			p := w.Packet(rng, addrs, acltest.Now)
			if enforce(r, p, acltest.Now) != r.Verdict(p, acltest.Now).Allow {
				return w, p, seed
			}
		}
	}
	t.Fatal("no packet shows the fault: the worlds show nothing")
	return nil, rules.Packet{}, 0
}
