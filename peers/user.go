package peers

import (
	"iter"
	"time"
)

// User is a person.
type User struct {
	ID       ID
	Name     string // as written; unique without regard to case
	Created  time.Time
	Disabled bool
	TOTP     Sealed    // empty until enrolment is finished
	LastStep int64     // the last accepted TOTP step, Unix time / 30; 0 if none
	Failures int       // in a row, since the last accepted code or lock
	Lockouts int       // in a row; each doubles the next
	Locked   time.Time // until when; zero if never
}

type wireUser struct {
	ID       ID     `cbor:"1,keyasint"`
	Name     string `cbor:"2,keyasint"`
	Created  stamp  `cbor:"3,keyasint"`
	Disabled bool   `cbor:"4,keyasint,omitempty"`
	TOTP     Sealed `cbor:"5,keyasint,omitempty"`
	LastStep int64  `cbor:"6,keyasint,omitempty"`
	Failures int    `cbor:"7,keyasint,omitempty"`
	Lockouts int    `cbor:"8,keyasint,omitempty"`
	Locked   stamp  `cbor:"9,keyasint,omitempty"`
}

// MarshalCBOR gives the canonical encoding.
func (u User) MarshalCBOR() ([]byte, error) {
	return encMode.Marshal(wireUser{u.ID, u.Name, stampOf(u.Created), u.Disabled, u.TOTP, u.LastStep,
		u.Failures, u.Lockouts, stampOf(u.Locked)})
}

// UnmarshalCBOR reads what MarshalCBOR wrote.
func (u *User) UnmarshalCBOR(b []byte) error {
	w, err := unwire[wireUser](b)
	*u = User{w.ID, w.Name, w.Created.time(), w.Disabled, w.TOTP, w.LastStep, w.Failures, w.Lockouts, w.Locked.time()}
	return err
}

// UserAdd adds a user and, when Invitation is not nil, an invitation.
type UserAdd struct {
	ID         ID             `cbor:"1,keyasint,omitzero"`
	Name       string         `cbor:"2,keyasint,omitempty"`
	Invitation *NewInvitation `cbor:"3,keyasint,omitempty"`
}

func (c UserAdd) apply(t *tx) (Result, error) {
	if c.ID.IsZero() {
		return Result{}, refuse("user_no_id", shorten(c.Name))
	}
	if err := CheckUserName(c.Name); err != nil {
		return Result{}, err
	}
	if u := userByName(t, c.Name); u != nil {
		return Result{}, refuse("user_exists", u.Name)
	}
	if get[User](t, tableUsers, byID, c.ID[:]) != nil {
		return Result{}, refuse("user_id_exists", c.ID)
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

// UserEnable enables or disables. Disabling ends the user's sessions.
type UserEnable struct {
	User    ID   `cbor:"1,keyasint,omitzero"`
	Enabled bool `cbor:"2,keyasint,omitempty"`
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

// UserRemove removes a user, her devices (leaving tombstones), invitations and sessions.
type UserRemove struct {
	User ID `cbor:"1,keyasint,omitzero"`
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

// TOTPReset takes the user's authenticator away and ends her sessions. LastStep, failures
// and lock stay: enrolling again is no way around them.
type TOTPReset struct {
	User ID `cbor:"1,keyasint,omitzero"`
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
		return nil, refuse("user_not_found", id)
	}
	return u, nil
}

func checkEnabled(u *User) error {
	if u.Disabled {
		return refuse("user_disabled", u.Name)
	}
	return nil
}

// User returns the user with this id.
func (v *View) User(id ID) *User { return get[User](v, tableUsers, byID, id[:]) }

// UserByName returns the user with this name, without regard to case.
func (v *View) UserByName(name string) *User { return userByName(v, name) }

// Users yields all users by name.
func (v *View) Users() iter.Seq[*User] { return scan[User](v, tableUsers, byName, nil) }

func userByName(r reader, name string) *User {
	if name == "" {
		return nil
	}
	return get[User](r, tableUsers, byName, []byte(fold(name)))
}
