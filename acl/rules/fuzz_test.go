package rules_test

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"vpnd/acl/acltest"
	"vpnd/acl/language"
	"vpnd/acl/rules"
)

// FuzzParse: no text makes Parse or Compile panic, and every fault lies inside the text.
func FuzzParse(f *testing.F) {
	f.Add([]byte(language.DefaultPolicy()))
	golden, _ := filepath.Glob("testdata/*.hujson")
	for _, file := range golden {
		text, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text)
	}
	for seed := range uint64(8) {
		f.Add(acltest.Random(rand.New(rand.NewPCG(seed, 5)), 6).Text())
	}
	f.Add([]byte(`{"grants": [{"src": ["a"], "dst": ["é\u00e9:1"], "ip": ["x"], "hours": [""], "expires": ""}], "acls": [{}], "tests": [{}]}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		before := language.ParseStored(text)
		p, err := language.Parse(text)
		inside(t, text, err)
		if ignored := before.Ignored(); err == nil && len(ignored) > 0 || err != nil && len(ignored) == 0 {
			t.Fatalf("as a new text %v, but of a stored one this is ignored: %v", err, ignored)
		}
		if len(text) < 1<<16 { // what is in force has no limits
			o := benchOptions
			o.Stored = true
			r, err := rules.Compile(before, o, nil)
			if err != nil {
				t.Fatalf("what was accepted before is refused: %v", err)
			}
			r.Dump(acltest.Now)
		}
		if err != nil {
			return
		}
		r, err := rules.Compile(p, benchOptions, []rules.Subject{{Device: "a/b", User: "alice", Addrs: []netip.Addr{deviceAddr(1, true)}}})
		inside(t, text, err)
		if err == nil {
			r.Dump(acltest.Now)
			r.Reaches(deviceAddr(1, true), rules.Session{}, acltest.Now)
		}
		stored := benchOptions
		stored.Stored = true
		if _, err := rules.Compile(p, stored, nil); err != nil {
			t.Errorf("a stored policy is refused: %v", err)
		}
	})
}

// inside checks that an ErrorList points into the text.
func inside(t *testing.T, text []byte, err error) {
	var list language.ErrorList
	if err == nil {
		return
	}
	if !errors.As(err, &list) || !list.Fatal() {
		t.Fatalf("%T %v is no list of faults", err, err)
	}
	lines := bytes.Split(text, []byte("\n"))
	for _, e := range list {
		if e.Line < 1 || e.Line > len(lines) || e.Column < 1 || e.Column > len(lines[e.Line-1])+1 || e.Message == "" {
			t.Errorf("the fault %+v lies outside of the text", e)
		}
	}
}

// FuzzCompile: a random world agrees with the naive reading, and another order of it
// compiles to the same.
func FuzzCompile(f *testing.F) {
	for seed := range uint64(10) {
		f.Add(seed, uint8(seed+1))
	}
	// Small worlds, so that there are many; TestLargerWorlds has others.
	f.Fuzz(func(t *testing.T, seed uint64, grants uint8) { compileWorld(t, seed, int(grants%10)) })
}

// TestLargerWorlds: FuzzCompile's question of worlds with more grants, one of each size.
func TestLargerWorlds(t *testing.T) {
	for grants := 12; grants < 40; grants++ {
		compileWorld(t, uint64(grants), grants)
	}
}

func compileWorld(t *testing.T, seed uint64, grants int) {
	t.Helper()
	rng := rand.New(rand.NewPCG(seed, 6))
	w := acltest.Random(rng, grants)
	if what := disagreement(w, seed, 8); what != "" {
		t.Fatalf("%s\n%s%v", what, w.Text(), w.Subjects)
	}
	x := *w
	x.Grants = slices.Clone(w.Grants)
	slices.Reverse(x.Grants)
	a, err := w.Compile()
	if err != nil {
		t.Fatal(err)
	}
	b, err := x.Compile()
	if err != nil {
		t.Fatal(err)
	}
	if a.Shape() != b.Shape() || !sameTables(a, b) {
		t.Fatalf("two orders, two Rulesets:\n%s", w.Text())
	}
}

// FuzzHours: the instants at which windows open and close are those of the wall clock.
func FuzzHours(f *testing.F) {
	f.Add(int64(0), uint16(120), uint16(180), uint8(1<<6), uint8(1))
	f.Add(int64(86_400), uint16(1320), uint16(360), uint8(0x7f), uint8(3))
	zones := []string{"UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Africa/Casablanca", "Pacific/Apia"}
	f.Fuzz(func(t *testing.T, at int64, from, to uint16, days, zone uint8) {
		h := acltest.Hours{From: int(from % 1440), To: int(to%1440) + 1, Zone: zones[int(zone)%len(zones)]}
		for d := range 7 {
			h.Days[d] = days>>d&1 == 1
		}
		if h.From == h.To || h.Days == [7]bool{} {
			return
		}
		rng := rand.New(rand.NewPCG(uint64(at), 1))
		w := acltest.Random(rng, 0)
		w.Subjects = []rules.Subject{{Device: "d", User: "alice", Addrs: []netip.Addr{netip.MustParseAddr("10.77.0.2")}}}
		w.Grants = []acltest.Grant{{Src: []string{"alice"}, Dst: []string{"10.1.2.3"}, IP: []string{"*"}, MFA: "off", Hours: []acltest.Hours{h}}}
		r, err := w.Compile()
		if err != nil {
			t.Fatal(err)
		}
		p := rules.Packet{Src: w.Subjects[0].Addrs[0], Dst: netip.MustParseAddr("10.1.2.3"), Proto: 6, DstPort: 1}
		now := time.Unix(at%(1<<32), 0).UTC()
		v := r.Verdict(p, now)
		if v.Allow != w.Judge(p, now) {
			t.Fatalf("%s at %s: %+v", h, now, v)
		}
		if v.Until.IsZero() {
			return
		}
		// Nothing changes before Until; all does at it.
		if !v.Until.After(now) || w.Judge(p, v.Until.Add(-1)) != v.Allow || w.Judge(p, v.Until) == v.Allow {
			t.Fatalf("%s at %s: %+v, but before it %v and at it %v", h, now, v, w.Judge(p, v.Until.Add(-1)), w.Judge(p, v.Until))
		}
		for range 20 {
			if x := now.Add(time.Duration(rng.Int64N(int64(v.Until.Sub(now))))); w.Judge(p, x) != v.Allow {
				t.Fatalf("%s at %s: %+v, but not at %s", h, now, v, x)
			}
		}
	})
}
