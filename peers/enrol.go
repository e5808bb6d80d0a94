package peers

// EnrolBegin binds a new pending secret to a browser. For the same browser, a pending
// secret that is there already stays and is returned.
type EnrolBegin struct {
	Invitation ID       `cbor:"1,keyasint,omitzero"`
	Browser    [32]byte `cbor:"2,keyasint,omitzero"`
	Secret     Sealed   `cbor:"3,keyasint,omitempty"`
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
		return Result{}, refuse("browser_unnamed")
	}
	if len(i.Pending) > 0 && i.Browser == c.Browser {
		return Result{User: u, Invitation: i}, nil
	}
	if err := checkSealed("totp_secret", c.Secret); err != nil {
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

// EnrolFinish uses an invitation up: the pending secret becomes the user's (when she has
// none), Step is spent, and the device is added. With the invitation used, the same public
// key and, from level 2 on, the same browser it returns the same device again and changes
// nothing.
type EnrolFinish struct {
	Invitation ID        `cbor:"1,keyasint,omitzero"`
	Browser    [32]byte  `cbor:"2,keyasint,omitzero"`
	Step       int64     `cbor:"3,keyasint,omitempty"`
	Device     NewDevice `cbor:"4,keyasint"`
}

func (c EnrolFinish) apply(t *tx) (Result, error) {
	i, u, err := t.invitation(c.Invitation)
	if err != nil {
		return Result{}, err
	}
	if !i.Used.IsZero() {
		same := t.m.Level < levelAnswers || i.Browser == c.Browser
		if d := get[Device](t, tableDevices, byID, i.Device[:]); same && d != nil && d.PublicKey == c.Device.PublicKey {
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
			return Result{}, refuse("enrolment_not_begun", u.Name)
		}
		if i.Browser != c.Browser {
			return Result{}, refuse("enrolment_elsewhere", u.Name)
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
	i.Used, i.Device, i.Pending, i.Browser = t.m.Time.time(), d.ID, nil, c.Browser
	if t.m.Level < levelAnswers {
		i.Browser = [32]byte{}
	}
	i.Expires = i.Used.Add(usedInvitation)
	t.put(tableInvitations, i)
	t.audit("device.enrol", t.deviceName(d), described(d))
	return Result{User: u, Device: d, Invitation: i}, nil
}
