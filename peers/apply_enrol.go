package peers

func (c InvitationAdd) apply(t *tx) (Result, error) {
	u, err := t.user(c.User)
	if err != nil {
		return Result{}, err
	}
	if err := t.checkInvitation(c.Invitation); err != nil {
		return Result{}, err
	}
	for i := range invitationsOf(t, u.ID) {
		if i.Used.IsZero() {
			t.delete(tableInvitations, i)
		}
	}
	i := t.addInvitation(u, c.Invitation)
	t.audit("invitation.add", u.Name, "until "+clock(i.Expires))
	return Result{User: u, Invitation: i}, nil
}

func (c InvitationRemove) apply(t *tx) (Result, error) {
	i, u, err := t.invitation(c.Invitation)
	if err != nil {
		return Result{}, err
	}
	t.delete(tableInvitations, i)
	t.audit("invitation.remove", u.Name, "")
	return Result{User: u, Invitation: i}, nil
}

func (c EnrolBegin) apply(t *tx) (Result, error) {
	i, u, err := t.openInvitation(c.Invitation)
	if err != nil {
		return Result{}, err
	}
	if len(u.TOTP) > 0 {
		return Result{User: u, Invitation: i}, nil
	}
	if c.Browser == [32]byte{} {
		return Result{}, refuse(ErrInvalid, "the browser is not named: allow cookies for this page and open the link again")
	}
	if len(i.Pending) > 0 && i.Browser == c.Browser {
		return Result{User: u, Invitation: i}, nil
	}
	if err := checkSealed("the authenticator's secret", c.Secret); err != nil {
		return Result{}, err
	}
	detail := ""
	if len(i.Pending) > 0 {
		detail = "in another browser than before"
	}
	i = clone(i)
	i.Pending, i.Browser = c.Secret, c.Browser
	t.put(tableInvitations, i)
	t.audit("enrol.begin", u.Name, detail)
	return Result{User: u, Invitation: i}, nil
}

func (c EnrolFinish) apply(t *tx) (Result, error) {
	i, u, err := t.invitation(c.Invitation)
	if err != nil {
		return Result{}, err
	}
	if !i.Used.IsZero() {
		if d := get[Device](t, tableDevices, byID, i.Device[:]); d != nil && d.PublicKey == c.Device.PublicKey {
			return Result{User: u, Device: d, Invitation: i}, nil
		}
	}
	if i, u, err = t.openInvitation(c.Invitation); err != nil {
		return Result{}, err
	}
	if err := t.checkLocked(u); err != nil {
		return Result{}, err
	}
	enrolled := len(u.TOTP) > 0
	if !enrolled {
		if len(i.Pending) == 0 {
			return Result{}, refuse(ErrNotEnrolled, "user %s has not been shown an authenticator's secret yet: open the invitation's link again", u.Name)
		}
		if i.Browser != c.Browser {
			return Result{}, refuse(ErrOtherBrowser, "the enrolment of user %s was continued in another browser: finish it there, or open the invitation's link here again", u.Name)
		}
	}
	if err := checkStep(u, c.Step); err != nil {
		return Result{}, err
	}
	add, err := t.newDevice(u, c.Device)
	if err != nil {
		return Result{}, err
	}
	u, i = clone(u), clone(i)
	if !enrolled {
		u.TOTP = i.Pending
	}
	// Failures and lockouts stay: enrolling again is no way around a lock.
	u.LastStep = c.Step
	t.put(tableUsers, u)
	d := add()
	i.Used, i.Device, i.Pending, i.Browser = t.m.Time.time(), d.ID, nil, [32]byte{}
	i.Expires = i.Used.Add(usedInvitation)
	t.put(tableInvitations, i)
	t.audit("device.enrol", t.deviceName(d), described(d))
	return Result{User: u, Device: d, Invitation: i}, nil
}

// invitation returns the invitation with this id and its user, or ErrNotFound.
func (t *tx) invitation(id ID) (*Invitation, *User, error) {
	i := get[Invitation](t, tableInvitations, byID, id[:])
	if i == nil {
		return nil, nil, refuse(ErrNotFound, "there is no such invitation: it was withdrawn or replaced; ask for a new one")
	}
	u, err := t.user(i.User)
	return i, u, err
}

// openInvitation returns an invitation that can be used now.
func (t *tx) openInvitation(id ID) (*Invitation, *User, error) {
	i, u, err := t.invitation(id)
	if err != nil {
		return nil, nil, err
	}
	if !i.Used.IsZero() {
		return nil, nil, refuse(ErrUsed, "this invitation of user %s was used at %s: ask for a new one", u.Name, clock(i.Used))
	}
	if t.m.Time >= stampOf(i.Expires) {
		return nil, nil, refuse(ErrExpired, "this invitation of user %s ended at %s: ask for a new one", u.Name, clock(i.Expires))
	}
	if err := checkEnabled(u); err != nil {
		return nil, nil, err
	}
	return i, u, nil
}

func (t *tx) checkInvitation(n NewInvitation) error {
	if n.ID.IsZero() || n.Hash == [32]byte{} {
		return refuse(ErrInvalid, "the invitation has no id or no token")
	}
	if stampOf(n.Expires) <= t.m.Time {
		return refuse(ErrInvalid, "the invitation would end at %s, which is not after now, %s: choose a later end", clock(n.Expires), clock(t.m.Time.time()))
	}
	if stampOf(n.Expires) > maxTime {
		return refuse(ErrInvalid, "the invitation would end at %s: choose an earlier end", clock(n.Expires))
	}
	if get[Invitation](t, tableInvitations, byID, n.ID[:]) != nil || get[Invitation](t, tableInvitations, byHash, n.Hash[:]) != nil {
		return refuse(ErrExists, "there is an invitation with this id or token already")
	}
	return nil
}

func (t *tx) addInvitation(u *User, n NewInvitation) *Invitation {
	i := &Invitation{ID: n.ID, Hash: n.Hash, User: u.ID, Created: t.m.Time.time(), Expires: n.Expires}
	t.put(tableInvitations, i)
	return i
}

// expireInvitations removes those that have ended, the used ones too.
func (t *tx) expireInvitations(most int) int {
	n := 0
	for i := range scan[Invitation](t, tableInvitations, byEnd, nil) {
		if n == most || t.m.Time < stampOf(i.Expires) {
			break
		}
		t.delete(tableInvitations, i)
		n++
	}
	return n
}
