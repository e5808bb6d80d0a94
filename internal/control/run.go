package control

import (
	"context"
	"sync"
	"time"

	"vpnd/peers"
)

const (
	expireBatch     = 1000        // what one Expire removes at most
	expireEvery     = time.Second // at most one Expire in so long
	expireIdle      = time.Minute // how long to sleep when nothing is due
	invitationsScan = time.Hour   // how often to look for ended invitations
)

// Run does what happens without anybody asking, until ctx ends: it removes what has
// ended, takes back a policy that was not confirmed, and audits drift.
func (s *Service) Run(ctx context.Context) {
	var wg sync.WaitGroup
	wg.Go(func() { s.expire(ctx) })
	wg.Go(func() { s.revert(ctx) })
	wg.Go(func() { s.auditDrift(ctx) })
	wg.Go(func() { s.findSpellings(ctx) })
	wg.Wait()
}

// expire proposes Expire when something has ended. That is book-keeping: a session ends
// in the kernel, and an ended invitation is refused, without it.
func (s *Service) expire(ctx context.Context) {
	var scanned time.Time // when invitations were last looked at
	for {
		v := s.View()
		now := s.now()
		wait := expireIdle
		if s.store.Leader() {
			if err := s.upgrade(ctx); err != nil && ctx.Err() == nil {
				s.log.Warn("the state's level could not be raised", "what", "state.upgrade", "why", cause(err))
			}
			due := false
			if next, ok := firstEnd(v); ok {
				if due = !now.Before(next); !due {
					wait = min(wait, next.Sub(now))
				}
			}
			if now.Sub(scanned) >= invitationsScan || now.Before(scanned) {
				scanned = now
				due = due || invitationEnded(v, now)
			}
			if due {
				if _, err := s.ask(ctx, Expire{}); err != nil && ctx.Err() == nil {
					s.log.Warn("what has ended could not be removed", "what", "state.expire", "why", cause(err))
				}
				wait = expireEvery
			}
		}
		timer := time.NewTimer(max(wait, expireEvery))
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-v.Changed():
			// Not at once: many changes in a row need one look.
			timer.Stop()
			select {
			case <-ctx.Done():
				return
			case <-time.After(expireEvery):
			}
		case <-timer.C:
		}
	}
}

// Expire asks to remove what has ended.
type Expire struct{}

// decide repeats the command, whose work is bounded, while it found anything to do.
func (Expire) decide(ctx context.Context, d *decision) (Answer, error) {
	for {
		index, res, err := d.propose(ctx, peers.Expire{})
		if err != nil || res.Count < expireBatch {
			return Answer{Index: index}, err
		}
	}
}

// firstEnd is when the session that ends first ends.
func firstEnd(v *peers.View) (time.Time, bool) {
	for ss := range v.Sessions() {
		return ss.Until, true
	}
	return time.Time{}, false
}

// invitationEnded says whether there is an invitation past its end. It looks at all.
func invitationEnded(v *peers.View, now time.Time) bool {
	for u := range v.Users() {
		for inv := range v.InvitationsOf(u.ID) {
			if !now.Before(inv.Expires) {
				return true
			}
		}
	}
	return false
}
