package peers

import (
	"testing"
	"time"
)

func TestLock(t *testing.T) {
	c := newCluster(t)
	u, d := enrol(c, "alice", "laptop")
	refused(c, Failure{id("nobody")}, ErrNotFound)
	lengths := []time.Duration{15 * time.Minute, 30 * time.Minute, time.Hour, 2 * time.Hour, 4 * time.Hour, 8 * time.Hour, 16 * time.Hour, 24 * time.Hour, 24 * time.Hour}
	for n, want := range lengths {
		for i := 1; i < lockFailures; i++ {
			if r := must(c, Failure{u.ID}); r.User.Failures != i || r.User.Locked.After(c.now) {
				t.Fatalf("failure %d: %+v", i, r.User)
			}
		}
		r := must(c, Failure{u.ID})
		if got := r.User.Locked.Sub(c.now); got != want || r.User.Failures != 0 || r.User.Lockouts != n+1 {
			t.Fatalf("lockout %d lasts %s, want %s: %+v", n+1, got, want, r.User)
		}
		for range 1000 {
			if r := c.do(Failure{u.ID}); r.Err == nil {
				t.Fatal("a failure is counted while locked")
			}
		}
		refused(c, Failure{u.ID}, ErrLocked)
		refused(c, Login{d.ID, c.step(1)}, ErrLocked)
		c.now = c.now.Add(want - time.Nanosecond)
		refused(c, Login{d.ID, c.step(1)}, ErrLocked)
		c.now = c.now.Add(time.Nanosecond)
	}
	r := must(c, Login{d.ID, c.step(1)})
	if r.User.Failures != 0 || r.User.Lockouts != 0 {
		t.Errorf("after a code: %+v", r.User)
	}
	for range lockFailures {
		r = must(c, Failure{u.ID})
	}
	if got := r.User.Locked.Sub(c.now); got != 15*time.Minute {
		t.Errorf("the next lock lasts %s", got)
	}
	if r := must(c, UserUnlock{u.ID}); !r.User.Locked.IsZero() || r.User.Lockouts != 0 {
		t.Errorf("unlocked: %+v", r.User)
	}
	must(c, Login{d.ID, c.step(2)})
	before := c.contents()
	must(c, UserUnlock{u.ID})
	if string(before) != string(c.contents()) {
		t.Error("unlocking who is not locked changes something")
	}
	refused(c, UserUnlock{id("nobody")}, ErrNotFound)
}
