package control

import (
	"context"
	"time"

	"vpnd/peers"
)

// A policy that is applied to be confirmed waits in the replicated state, so that no crash
// and no change of leader forgets it. Whoever leads takes it back when its time has come.

// ConfirmPolicy keeps the policy that waits for a confirmation. Only who applied it can.
func (s *Service) ConfirmPolicy(ctx context.Context) (*peers.PolicyVersion, error) {
	w, err := s.waiting()
	if err != nil {
		return nil, err
	}
	_, res, err := s.propose(ctx, peers.PolicyConfirm{Version: w.Version})
	return res.Policy, err
}

// RevertPolicy takes it back before its time. Anybody can: that is what happens anyway.
func (s *Service) RevertPolicy(ctx context.Context) (*peers.PolicyVersion, []Closed, error) {
	w, err := s.waiting()
	if err != nil {
		return nil, nil, err
	}
	index, res, err := s.propose(ctx, peers.PolicyRevert{Version: w.Version, Early: true})
	if err != nil {
		return nil, nil, err
	}
	return res.Policy, s.closed(ctx, index), nil
}

func (s *Service) waiting() (*peers.Pending, error) {
	if w := s.View().Pending(); w != nil {
		return w, nil
	}
	return nil, refuse(CodeNotFound, "No policy waits for a confirmation: it was confirmed, or taken back, already; `vpnctl policy history` tells.")
}

// revert takes back what was not confirmed in time, until ctx ends.
func (s *Service) revert(ctx context.Context) {
	for {
		v := s.View()
		wait := expireIdle // nothing waits
		if w := v.Pending(); w != nil {
			wait = w.Until.Sub(s.Time(v))
			if wait <= 0 && s.store.Leader() {
				s.revertDue(ctx, w)
			}
			if wait <= 0 { // another leads, or it failed: it may be up to this node soon
				wait = expireEvery
			}
		}
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-v.Changed():
			timer.Stop()
		case <-timer.C:
		}
	}
}

func (s *Service) revertDue(ctx context.Context, w *peers.Pending) {
	_, _, err := s.propose(ctx, peers.PolicyRevert{Version: w.Version})
	switch {
	case err == nil:
		s.logf("version %d of the policy, applied by %s, was not confirmed in time: version %d is in force again", w.Version, w.By, w.Back)
	case ctx.Err() == nil:
		s.logf("take version %d of the policy back: %v", w.Version, cause(err))
	}
}
