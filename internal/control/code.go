package control

import (
	"context"
	"errors"
	"time"

	"vpnd/peers"
)

// clockSlack is how far the wall clock may lie behind State's time: more, and codes of
// the past might pass as today's.
const clockSlack = 5 * time.Second

// lockUser takes the lock under which a user's codes are checked, one at a time: from
// reading her failure count until what follows from the code is applied. Only the leader
// does so, hence nobody else checks her codes meanwhile.
func (l *Leader) lockUser(ctx context.Context, id peers.ID) (unlock func(), err error) {
	unlock, err = l.users.lock(ctx, id)
	if err != nil {
		return nil, Refuse("checks_waiting").because(err)
	}
	return unlock, nil
}

// checkCode evaluates a code against a sealed secret. The caller holds u's lock and has
// read u from v under it. A wrong code is counted before this returns; while u is locked
// nothing is evaluated, and right and wrong get the same answer.
func (d *decision) checkCode(ctx context.Context, v *peers.View, u *peers.User, secret peers.Sealed, code string) (step int64, err error) {
	now := d.now()
	if behind := v.Time().Sub(now); behind > clockSlack {
		return 0, Refuse("clock_behind", now, v.Time())
	}
	now = later(now, v.Time())
	if now.Before(u.Locked) {
		return 0, lockedError(u, now)
	}
	if !d.factor.plausible(code) {
		// It cannot be right, so it tells a guesser nothing and is not counted.
		return 0, Refuse("code_shape")
	}
	opened, err := d.sealer.Open(u.ID, fieldTOTP, secret)
	if err != nil {
		return 0, internal("open the stored secret of "+u.Name, err)
	}
	d.tried.Add(1)
	step, verdict, err := d.factor.check(opened, code, now, u.LastStep)
	if err != nil {
		return 0, internal("check the code of "+u.Name, err)
	}
	switch verdict {
	case codeRight:
		return step, nil
	case codeUsed:
		return 0, codeUsedError(now, u.LastStep)
	default:
		return 0, d.countFailure(ctx, u, now)
	}
}

// countFailure counts a wrong code and returns what to answer.
func (d *decision) countFailure(ctx context.Context, u *peers.User, now time.Time) error {
	_, _, err := d.commit(ctx, peers.Failure{User: u.ID})
	if errors.Is(err, peers.ErrLocked) {
		return d.lockedNow(u.ID)
	}
	if err != nil {
		return err
	}
	if u = d.View().User(u.ID); u != nil && now.Before(u.Locked) {
		return Refuse("code_wrong_locked", u.Name, u.Locked).after(lockedFor(u, now))
	}
	return Refuse("code_wrong")
}

// lockedNow is the answer to a command that State refused because the user is locked.
func (l *Leader) lockedNow(id peers.ID) *Error {
	v := l.View()
	u := v.User(id)
	if u == nil {
		return Refuse("account_gone")
	}
	return lockedError(u, l.Time(v))
}

func lockedError(u *peers.User, now time.Time) *Error {
	return Refuse("user_locked", u.Name, u.Locked).after(lockedFor(u, now))
}

func lockedFor(u *peers.User, now time.Time) time.Duration {
	return max(u.Locked.Sub(now), time.Second)
}

func codeUsedError(now time.Time, last int64) *Error {
	wait := nextCode(now, last)
	if wait > 2*totpPeriod {
		// The gateway's clock was ahead when the last code was accepted.
		return Refuse("code_ahead", totpStart(last)).after(wait)
	}
	return Refuse("code_spent", wait.Truncate(time.Second)).after(wait)
}

// codeRefused answers a refusal of the command that a right code led to.
func (l *Leader) codeRefused(u *peers.User, err error) error {
	switch {
	case errors.Is(err, peers.ErrLocked):
		return l.lockedNow(u.ID)
	case errors.Is(err, peers.ErrCodeUsed):
		last := u.LastStep
		if u := l.View().User(u.ID); u != nil {
			last = u.LastStep
		}
		return codeUsedError(l.now(), last)
	}
	return err
}
