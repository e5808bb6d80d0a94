package control

import (
	"context"
	"fmt"
	"time"

	"vpnd/peers"
)

// A policy that is applied to be confirmed waits in the replicated state, so that no crash
// and no change of leader forgets it. Whoever leads takes it back when its time has come.

// ConfirmPolicy asks to keep the policy that waits.
type ConfirmPolicy struct{}

// ConfirmPolicy keeps the policy that waits for a confirmation. Only who applied it can.
func (s *Service) ConfirmPolicy(ctx context.Context) (*peers.PolicyVersion, error) {
	a, err := s.ask(ctx, ConfirmPolicy{})
	if err != nil {
		return nil, err
	}
	return policyVersion(s.View(), a.Policy)
}

func (ConfirmPolicy) decide(ctx context.Context, d *decision) (Answer, error) {
	if first, ok := d.before(); ok {
		return told(first)
	}
	w, err := waiting(d.View())
	if err != nil {
		return Answer{}, err
	}
	index, _, err := d.propose(ctx, peers.PolicyConfirm{Version: w.Version})
	return Answer{Index: index, Policy: w.Version}, err
}

// RevertPolicy asks to take the policy back that waits.
type RevertPolicy struct {
	Due uint64 // 0: before its time; else the version whose time has come
}

// RevertPolicy takes it back before its time. Anybody can: that is what happens anyway.
func (s *Service) RevertPolicy(ctx context.Context) (*peers.PolicyVersion, []Closed, error) {
	a, err := s.ask(ctx, RevertPolicy{})
	if err != nil {
		return nil, nil, err
	}
	p, err := policyVersion(s.View(), a.Policy)
	if err != nil {
		return nil, nil, err
	}
	return p, s.closed(ctx, a.Index), nil
}

func (q RevertPolicy) decide(ctx context.Context, d *decision) (Answer, error) {
	if first, ok := d.before(); ok {
		return told(first)
	}
	revert := peers.PolicyRevert{Version: q.Due}
	if q.Due == 0 {
		w, err := waiting(d.View())
		if err != nil {
			return Answer{}, err
		}
		revert = peers.PolicyRevert{Version: w.Version, Early: true}
	}
	index, res, err := d.propose(ctx, revert)
	if err != nil {
		return Answer{}, err
	}
	return Answer{Index: index, Policy: res.Policy.Version}, nil
}

func waiting(v *peers.View) (*peers.Pending, error) {
	if w := v.Pending(); w != nil {
		return w, nil
	}
	return nil, Refuse("no_policy_waits")
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
	_, err := s.ask(ctx, RevertPolicy{Due: w.Version})
	switch {
	case err == nil:
		s.log.Warn(fmt.Sprintf("the policy was not confirmed in time: version %d is in force again", w.Back), "what", "policy.revert", "who", w.By, "version", w.Version)
	case ctx.Err() == nil:
		s.log.Warn("the policy that was not confirmed could not be taken back", "what", "policy.revert", "version", w.Version, "why", cause(err))
	}
}
