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

// Health is how Raft does on this node.
type Health struct {
	Leads   bool          // this node may act as leader
	Led     bool          // some node leads, as far as this one knows
	Term    uint64        // Raft's
	Behind  uint64        // committed entries that the state does not have yet
	Contact time.Duration // since this node heard of the leader; 0 where it leads, or has heard of none
}

// Health reads what Raft knows; it waits for nobody.
func (s *Store) Health() Health {
	r := s.raft.Load()
	h := Health{Leads: s.Leader(), Term: r.CurrentTerm()}
	h.Led = h.Leads
	if _, id := r.LeaderWithID(); id != "" && id != raft.ServerID(s.id) {
		h.Led = true
		if last := r.LastContact(); !last.IsZero() {
			h.Contact = time.Since(last)
		}
	}
	// A node that has just begun from a snapshot does not know yet what is committed.
	if applied, commit := r.AppliedIndex(), r.CommitIndex(); commit > applied {
		h.Behind = commit - applied
	}
	return h
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

// CatchUp returns when this node leads, or has applied what its leader had committed when
// it was heard. When most has passed without either it says ErrNoLeader: what the state has
// is then true as of some time ago. The only voter waits on: nobody else could lead, and
// all that is in its log counts.
func (s *Store) CatchUp(ctx context.Context, most time.Duration) error {
	const pause = 10 * time.Millisecond // Raft announces neither contact nor progress
	alone, err := s.onlyVoter()
	if err != nil {
		return err
	}
	var late <-chan time.Time
	if !alone {
		late = time.After(most)
	}
	for {
		s.mu.Lock()
		changed := s.changed
		s.mu.Unlock()
		if s.Leader() || s.follows() {
			return nil
		}
		select {
		case <-changed:
		case <-time.After(pause):
		case <-late:
			return ErrNoLeader
		case <-s.dead:
			return s.stopped()
		case <-ctx.Done():
			return fmt.Errorf("wait for a leader: %w", ctx.Err())
		}
	}
}

// follows says whether another node leads and this one has what was committed of its log.
func (s *Store) follows() bool {
	r := s.raft.Load()
	_, leader := r.LeaderWithID()
	commit := r.CommitIndex()
	return leader != "" && leader != raft.ServerID(s.id) && !r.LastContact().IsZero() && commit > 0 && r.AppliedIndex() >= commit
}

func (s *Store) onlyVoter() (bool, error) {
	f := s.raft.Load().GetConfiguration()
	if err := f.Error(); err != nil {
		return false, fmt.Errorf("read who is in the cluster: %w", err)
	}
	for _, n := range f.Configuration().Servers {
		if n.Suffrage == raft.Voter && n.ID != raft.ServerID(s.id) {
			return false, nil
		}
	}
	return true, nil
}
