package peers

import (
	"fmt"
	"time"
)

// stamp is a time as Unix nanoseconds; 0 is the zero time.
type stamp int64

func stampOf(t time.Time) stamp {
	if t.IsZero() {
		return 0
	}
	return stamp(t.UnixNano())
}

func (s stamp) time() time.Time {
	if s == 0 {
		return time.Time{}
	}
	return time.Unix(0, int64(s)).UTC()
}

// checkTime refuses a time that a stamp cannot hold: one long before 1970 or after 2262.
func checkTime(t time.Time) error {
	if !stampOf(t).time().Equal(t) {
		return fmt.Errorf("the time %v cannot be written as nanoseconds from 1970", t)
	}
	return nil
}

// clock writes a time for messages.
func clock(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05 UTC") }

// tick moves the state's time on.
func (t *tx) tick(c Command) error {
	at := stampOf(c.At)
	_, reset := c.Body.(TimeReset)
	if at > maxTime || reset && at <= 0 {
		return refuse("time_impossible", c.At)
	}
	if reset || at > t.m.Time {
		t.m.Time = at
	}
	return nil
}

// Time is the latest time that a command carried.
func (v *View) Time() time.Time { return v.m.Time.time() }

// TimeReset ends all sessions and makes At the state's time, even if that is earlier.
type TimeReset struct{}

func (TimeReset) apply(t *tx) (Result, error) {
	n := 0
	for s := range scan[Session](t, tableSessions, byID, nil) {
		t.endSession(s)
		n++
	}
	if p := t.m.Pending; p != nil {
		// A deadline on a clock that was wrong means nothing: it has come.
		t.m.Pending = &Pending{p.Version, p.Back, t.m.Time.time(), p.By}
	}
	t.endVaultLocks()
	t.keepPlaces()
	t.endSelfTests()
	t.audit("time.reset", "", fmt.Sprintf("%s ended", sessions(n)))
	return Result{Count: n}, nil
}
