package peers

import (
	"errors"
	"testing"
	"time"
)

func TestTimeNeverRunsBackwards(t *testing.T) {
	c := newCluster(t)
	u, d := enrol(c, "alice", "laptop")
	c.now = c.now.Add(time.Hour)
	late := c.now
	must(c, Login{d.ID, c.step(0)})
	c.now = c.now.Add(-30 * time.Minute)
	s := must(c, Login{d.ID, c.step(0) + 1000}).Session
	if !s.Until.Equal(late.Add(12 * time.Hour)) {
		t.Errorf("a session of the past ends at %v", s.Until)
	}
	for range lockFailures {
		must(c, Failure{u.ID})
	}
	if got := c.View().User(u.ID).Locked; !got.Equal(late.Add(15 * time.Minute)) {
		t.Errorf("locked until %v", got)
	}
	if !c.View().Time().Equal(late) {
		t.Errorf("the time is %v, want %v", c.View().Time(), late)
	}
	// A clock gone mad must not take the state along.
	for _, mad := range []time.Time{time.Date(2250, 1, 1, 0, 0, 0, 0, time.UTC), time.Date(1960, 1, 1, 0, 0, 0, 0, time.UTC)} {
		c.now = mad
		if r := c.do(TimeReset{}); !errors.Is(r.Err, ErrInvalid) || !c.View().Time().Equal(late) {
			t.Errorf("at %v: %v, and the time is %v", mad, r.Err, c.View().Time())
		}
	}
	c.now = late.Add(time.Hour)
	refused(c, Failure{id("nobody")}, ErrNotFound)
	if !c.View().Time().Equal(c.now) {
		t.Error("a refused command does not move the time")
	}
}
