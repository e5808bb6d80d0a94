package rules

import (
	"testing"
	"time"
)

// Of two verdicts the better one is: by the reason; with another end, what never ends or ends
// later, but what is outside of its hours is better the sooner it begins, and never is worst; and
// of all others the first grant's.
func TestBetter(t *testing.T) {
	early, late := time.Unix(1, 0), time.Unix(2, 0)
	var order []Verdict // from the best
	for _, r := range []Reason{Allowed, PeerOffline, StaleCode, NoSession, OutsideTime, NoGrant} {
		ends := []time.Time{{}, late, early}
		if r == OutsideTime {
			ends = []time.Time{early, late, {}}
		}
		for _, until := range ends {
			for grant := range 2 {
				order = append(order, Verdict{Reason: r, Until: until, Grant: grant})
			}
		}
	}
	for i, a := range order {
		for k, b := range order {
			if got := a.Better(b); got != (i < k) {
				t.Errorf("%+v is better than %+v: %v", a, b, got)
			}
		}
	}
}
