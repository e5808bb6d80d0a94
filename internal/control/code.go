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
		return nil, &Error{Code: CodeUnavailable, Err: err,
			Message: "Too many codes are waiting to be checked for this account. Try again in a few seconds."}
	}
	return unlock, nil
}

// checkCode evaluates a code against a sealed secret. The caller holds u's lock and has
// read u from v under it. A wrong code is counted before this returns; while u is locked
// nothing is evaluated, and right and wrong get the same answer.
func (d *decision) checkCode(ctx context.Context, v *peers.View, u *peers.User, secret peers.Sealed, code string) (step int64, err error) {
	now := d.now()
	if behind := v.Time().Sub(now); behind > clockSlack {
		return 0, refuse(CodeClockBehind,
			"The gateway's clock says %s, but its records already reach %s, so no code can be checked. "+
				"An administrator must set the clock right or, if it is the records that are wrong, run `vpnctl time reset`.",
			stamp(now), stamp(v.Time()))
	}
	now = later(now, v.Time())
	if now.Before(u.Locked) {
		return 0, lockedError(u, now)
	}
	if !d.factor.plausible(code) {
		// It cannot be right, so it tells a guesser nothing and is not counted.
		return 0, refuse(CodeCodeInvalid, "A code is six digits, without spaces. Type the one your authenticator shows now.")
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
	e := refuse(CodeCodeInvalid,
		"That code is not right. Type the newest one that your authenticator shows for this gateway; "+
			"if it goes on being refused, check that your phone sets its clock by itself.")
	if u = d.View().User(u.ID); u != nil && now.Before(u.Locked) {
		l := lockedError(u, now)
		e.Message, e.RetryAfter = "That code is not right. "+l.Message, l.RetryAfter
	}
	return e
}

// lockedNow is the answer to a command that State refused because the user is locked.
func (l *Leader) lockedNow(id peers.ID) *Error {
	v := l.View()
	u := v.User(id)
	if u == nil {
		return refuse(CodeNotFound, "This account was removed.")
	}
	return lockedError(u, l.Time(v))
}

func lockedError(u *peers.User, now time.Time) *Error {
	e := refuse(CodeLocked,
		"There were too many wrong codes in a row, so none is checked for %s until %s. Wait, or ask an administrator to lift the lock.",
		u.Name, stamp(u.Locked))
	e.RetryAfter = max(u.Locked.Sub(now), time.Second)
	return e
}

func codeUsedError(now time.Time, last int64) *Error {
	wait := nextCode(now, last)
	if wait > 2*totpPeriod {
		// The gateway's clock was ahead when the last code was accepted.
		e := refuse(CodeCodeUsed,
			"The last code accepted for you was one of %s, and none before it can be used. New codes are accepted from then on.", stamp(totpStart(last)))
		e.RetryAfter = wait
		return e
	}
	e := refuse(CodeCodeUsed,
		"That code has been used already; each is good for one sign-in. Your authenticator shows the next one in %d s.",
		int(wait/time.Second))
	e.RetryAfter = wait
	return e
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
