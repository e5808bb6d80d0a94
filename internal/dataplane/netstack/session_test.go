package netstack

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"vpnd/internal/dataplane"
)

var noon = time.Date(2030, 1, 2, 12, 0, 0, 0, time.UTC)

func minutes(m float64) time.Time { return noon.Add(time.Duration(m * float64(time.Minute))) }

// codes are codes given at these minutes, with serials from 1.
func codes(at ...float64) (cs []dataplane.Code) {
	for i, m := range at {
		cs = append(cs, dataplane.Code{Serial: uint32(i + 1), At: minutes(m)})
	}
	return cs
}

// chainAlive is the contract, word for word: the chain of codes that the flow was opened
// in, each less than f after the one before, reaches now.
func chainAlive(all []dataplane.Code, openedAt, now time.Time, f time.Duration) bool {
	at := openedAt
	for _, c := range all {
		if c.At.After(at) {
			if c.At.Sub(at) >= f {
				return false
			}
			at = c.At
		}
	}
	return now.Sub(at) < f
}

func TestWorthFollowsTheChain(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for range 20000 {
		var all []dataplane.Code
		at := 0.0
		var s *session
		var openings []opening
		for i := range 1 + rng.IntN(6) {
			all = append(all, dataplane.Code{Serial: uint32(i + 1), At: minutes(at)})
			// What the state keeps of them: the first, and the newest few.
			given := all
			if len(all) > 2 && rng.IntN(2) == 0 {
				given = append(append([]dataplane.Code{}, all[0]), all[len(all)-1])
			}
			s = newSession(dataplane.Session{Until: minutes(1000), Codes: given}, s)
			openings = append(openings, s.open(minutes(at)))
			at += float64(1 + rng.IntN(10))
		}
		now := minutes(at)
		for _, o := range openings {
			w := s.worth(o, now)
			for f := time.Minute; f < 15*time.Minute; f += time.Minute {
				got := now.Sub(w.Code) < f
				if want := chainAlive(all, o.at, now, f); got != want {
					t.Fatalf("codes %v, opened %v, now %v, freshness %v: alive %v, want %v", all, o.at, now, f, got, want)
				}
			}
		}
	}
}

func TestWorthNeedsTheSameSignIn(t *testing.T) {
	first := newSession(dataplane.Session{Until: minutes(60), Codes: codes(0)}, nil)
	o := first.open(minutes(1))
	other := newSession(dataplane.Session{Until: minutes(60), Codes: []dataplane.Code{{Serial: 9, At: minutes(2)}}}, first)
	for _, test := range []struct {
		name string
		s    *session
		o    opening
		now  time.Time
		want bool
	}{
		{"its own", first, o, minutes(2), true},
		{"a later sign-in", other, o, minutes(3), false},
		{"signed out", nil, o, minutes(2), false},
		{"at its end", first, o, minutes(60), false},
		{"opened without a session", first, opening{}, minutes(2), false},
	} {
		if got := !test.s.worth(test.o, test.now).Until.IsZero(); got != test.want {
			t.Errorf("%s: worth something %v, want %v", test.name, got, test.want)
		}
	}
	if (first.open(minutes(60)) != opening{}) {
		t.Error("a session that has ended opens flows")
	}
}

// A session that is told of again is the same: of one code as of several.
func TestSameSession(t *testing.T) {
	one := dataplane.Session{Until: minutes(10), Codes: []dataplane.Code{{Serial: 1, At: minutes(0)}}}
	two := one
	two.Codes = append(slices.Clone(one.Codes), dataplane.Code{Serial: 2, At: minutes(1)})
	other := dataplane.Session{Until: minutes(10), Codes: []dataplane.Code{{Serial: 7, At: minutes(0)}}}
	later := one
	later.Until = minutes(11)
	all := []dataplane.Session{one, two, other, later, {}}
	for i, a := range all {
		for k, b := range all {
			if got, want := newSession(a, nil).same(b), i == k && len(a.Codes) > 0; got != want {
				t.Errorf("%d is the same as %d: %v", i, k, got)
			}
		}
	}
	if (*session)(nil).same(one) {
		t.Error("no session is the same as one")
	}
}
