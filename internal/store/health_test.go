package store

import (
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// What waits for the disk is timed, and a node that leads says so.
func TestHealth(t *testing.T) {
	var writes, snapshots atomic.Int64
	s, err := Open(t.Context(), Config{
		Dir: t.TempDir(), Fatal: func(err error) { t.Error(err) },
		Wrote:   func(d time.Duration) { writes.Add(int64(d)) },
		Snapped: func(d time.Duration) { snapshots.Add(int64(d)) },
	})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if err := s.Ready(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, _, err := s.Propose(t.Context(), initial()); err != nil {
		t.Fatal(err)
	}
	if err := s.Snapshot(); err != nil {
		t.Fatal(err)
	}
	if h := s.Health(); !h.Leads || !h.Led || h.Term == 0 || h.Behind != 0 || h.Contact != 0 {
		t.Errorf("%+v", h)
	}
	if writes.Load() <= 0 || snapshots.Load() <= 0 {
		t.Errorf("writes took %v, snapshots %v", writes.Load(), snapshots.Load())
	}
}

// One that follows knows who leads and when it heard of it, until nobody does.
func TestHealthOfAFollower(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		defer c.close()
		leader := c.leader(t)
		follower := (leader + 1) % len(c.nodes)
		time.Sleep(time.Second)
		if h := c.nodes[follower].Health(); h.Leads || !h.Led || h.Contact > 500*time.Millisecond {
			t.Errorf("behind a leader: %+v", h)
		}
		c.cut(follower)
		time.Sleep(10 * time.Second)
		if h := c.nodes[follower].Health(); h.Leads || h.Led {
			t.Errorf("cut off: %+v", h)
		}
	})
}
