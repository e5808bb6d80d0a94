package store

import (
	"context"
	"fmt"
	"time"

	"github.com/hashicorp/raft"
)

// lead follows Raft's leadership. A new leader may act only when its state has all that
// was committed before: a barrier through the log tells.
func (s *Store) lead(r *raft.Raft) {
	defer close(s.led)
	for {
		select {
		case leader := <-r.LeaderCh():
			if leader {
				s.enter(r)
			} else {
				s.setTerm(0)
			}
		case <-s.dead:
			s.setTerm(0)
			return
		}
	}
}

// enter makes this node act as leader, if it still is when its state has caught up.
func (s *Store) enter(r *raft.Raft) {
	term := r.CurrentTerm()
	for r.State() == raft.Leader && r.CurrentTerm() == term {
		done := make(chan error, 1)
		go func() { done <- r.Barrier(0).Error() }()
		select {
		case err := <-done:
			if err == nil {
				s.setTerm(term)
				return
			}
		case <-s.dead:
			return
		}
		select {
		case <-time.After(10 * time.Millisecond):
		case <-s.dead:
			return
		}
	}
}

func (s *Store) setTerm(t uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.term = t
	close(s.changed)
	s.changed = make(chan struct{})
}

// Leader says whether this node is the leader and may act as one.
func (s *Store) Leader() bool {
	s.mu.Lock()
	term := s.term
	s.mu.Unlock()
	r := s.raft.Load()
	return term != 0 && r.State() == raft.Leader && r.CurrentTerm() == term
}

// Ready returns when this node is leader and has applied all that was committed before.
func (s *Store) Ready(ctx context.Context) error {
	for {
		s.mu.Lock()
		changed := s.changed
		s.mu.Unlock()
		if s.Leader() {
			return nil
		}
		select {
		case <-changed:
		case <-s.dead:
			return s.stopped()
		case <-ctx.Done():
			return fmt.Errorf("wait for a leader: %w", ctx.Err())
		}
	}
}
