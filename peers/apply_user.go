package peers

import (
	"fmt"
	"time"
)

func (c UserAdd) apply(t *tx) (Result, error) {
	if c.ID.IsZero() {
		return Result{}, refuse(ErrInvalid, "user %q has no id", shorten(c.Name))
	}
	if err := CheckUserName(c.Name); err != nil {
		return Result{}, err
	}
	if u := userByName(t, c.Name); u != nil {
		return Result{}, refuse(ErrExists, "there is a user %s already: choose another name", u.Name)
	}
	if get[User](t, tableUsers, byID, c.ID[:]) != nil {
		return Result{}, refuse(ErrExists, "there is a user with the id %s already", c.ID)
	}
	u := &User{ID: c.ID, Name: c.Name, Created: t.m.Time.time()}
	result, detail := Result{User: u}, ""
	if c.Invitation != nil {
		if err := t.checkInvitation(*c.Invitation); err != nil {
			return Result{}, err
		}
		result.Invitation = t.addInvitation(u, *c.Invitation)
		detail = "invited until " + clock(c.Invitation.Expires)
	}
	t.put(tableUsers, u)
	t.m.users++
	t.audit("user.add", u.Name, detail)
	return result, nil
}

func (c UserEnable) apply(t *tx) (Result, error) {
	u, err := t.user(c.User)
	if err != nil {
		return Result{}, err
	}
	if u.Disabled != c.Enabled {
		return Result{User: u}, nil
	}
	u = clone(u)
	u.Disabled = !c.Enabled
	t.put(tableUsers, u)
	n := 0
	for d := range devicesOf(t, u.ID) {
		t.touch(d)
		if u.Disabled && t.endSessionOf(d.ID) {
			n++
		}
	}
	if u.Disabled {
		t.audit("user.disable", u.Name, sessions(n)+" ended")
	} else {
		t.audit("user.enable", u.Name, "")
	}
	return Result{User: u, Count: n}, nil
}

func (c UserRemove) apply(t *tx) (Result, error) {
	u, err := t.user(c.User)
	if err != nil {
		return Result{}, err
	}
	n := 0
	for d := range devicesOf(t, u.ID) {
		t.removeDevice(d)
		n++
	}
	for i := range invitationsOf(t, u.ID) {
		t.delete(tableInvitations, i)
	}
	t.delete(tableUsers, u)
	t.m.users--
	t.audit("user.remove", u.Name, count(n, "device")+" removed")
	return Result{User: u, Count: n}, nil
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

func (c TOTPReset) apply(t *tx) (Result, error) {
	u, err := t.user(c.User)
	if err != nil {
		return Result{}, err
	}
	u = clone(u)
	u.TOTP = nil
	t.put(tableUsers, u)
	n := 0
	for d := range devicesOf(t, u.ID) {
		if t.endSessionOf(d.ID) {
			t.touch(d)
			n++
		}
	}
	// A secret that was shown before the reset is no way to a new authenticator.
	for i := range invitationsOf(t, u.ID) {
		if i.Used.IsZero() && len(i.Pending) > 0 {
			i = clone(i)
			i.Pending, i.Browser = nil, [32]byte{}
			t.put(tableInvitations, i)
		}
	}
	t.audit("user.reset-totp", u.Name, sessions(n)+" ended")
	return Result{User: u, Count: n}, nil
}

// user returns the user with this id, or ErrNotFound.
func (t *tx) user(id ID) (*User, error) {
	u := get[User](t, tableUsers, byID, id[:])
	if u == nil {
		return nil, refuse(ErrNotFound, "there is no user with the id %s: she may have been removed meanwhile", id)
	}
	return u, nil
}

// checkLocked refuses while a user is locked.
func (t *tx) checkLocked(u *User) error {
	if t.m.Time < stampOf(u.Locked) {
		return refuse(ErrLocked, "user %s is locked until %s after too many wrong codes: wait, or have an administrator unlock her", u.Name, clock(u.Locked))
	}
	return nil
}

func checkEnabled(u *User) error {
	if u.Disabled {
		return refuse(ErrDisabled, "user %s is disabled: an administrator can enable her", u.Name)
	}
	return nil
}

// checkStep refuses a TOTP step that was spent, or lies before one that was.
func checkStep(u *User, step int64) error {
	if step <= 0 {
		return refuse(ErrInvalid, "TOTP step %d: steps are above 0", step)
	}
	if step <= u.LastStep {
		return refuse(ErrCodeUsed, "this code of user %s, or a newer one, was used already: wait for the next code", u.Name)
	}
	return nil
}

// clone copies an object before it is changed: what is in a table is shared.
func clone[T any](o *T) *T {
	c := *o
	return &c
}

// clock writes a time for messages.
func clock(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05 UTC") }

func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

func sessions(n int) string { return count(n, "session") }
