package peers

import "time"

// Failure counts a wrong code. Five in a row lock the user: 15 minutes, then doubling up
// to a day. While she is locked it changes nothing and returns ErrLocked.
type Failure struct {
	User ID `cbor:"1,keyasint,omitzero"`
}

func (c Failure) apply(t *tx) (Result, error) {
	u, err := t.user(c.User)
	if err != nil {
		return Result{}, err
	}
	if err := t.checkLocked(u); err != nil {
		return Result{}, err
	}
	u = clone(u)
	u.Failures++
	if u.Failures < lockFailures {
		t.put(tableUsers, u)
		t.audit("code.wrong", u.Name, count(u.Failures, "failure")+" in a row")
		return Result{User: u}, nil
	}
	length := lockMost
	if u.Lockouts < 7 { // 15 min * 2^7 is more than a day
		length = min(lockMost, lockFirst<<u.Lockouts)
	}
	u.Failures = 0
	u.Lockouts++
	u.Locked = t.m.Time.time().Add(length)
	t.put(tableUsers, u)
	t.audit("user.lock", u.Name, "until "+clock(u.Locked)+" after "+count(lockFailures, "wrong code")+" in a row")
	return Result{User: u}, nil
}

// UserUnlock lifts a lock and forgets failures and lockouts.
type UserUnlock struct {
	User ID `cbor:"1,keyasint,omitzero"`
}

func (c UserUnlock) apply(t *tx) (Result, error) {
	u, err := t.user(c.User)
	if err != nil {
		return Result{}, err
	}
	if u.Failures == 0 && u.Lockouts == 0 && u.Locked.IsZero() {
		return Result{User: u}, nil
	}
	u = clone(u)
	u.Failures, u.Lockouts, u.Locked = 0, 0, time.Time{}
	t.put(tableUsers, u)
	t.audit("user.unlock", u.Name, "")
	return Result{User: u}, nil
}

// checkLocked refuses while a user is locked.
func (t *tx) checkLocked(u *User) error {
	if t.m.Time < stampOf(u.Locked) {
		return refuse("user_locked", u.Name, u.Locked)
	}
	return nil
}

// checkStep refuses a TOTP step that was spent, or lies before one that was.
func checkStep(u *User, step int64) error {
	if step <= 0 {
		return refuse("step_invalid", step)
	}
	if step <= u.LastStep {
		return refuse("code_used", u.Name)
	}
	return nil
}
