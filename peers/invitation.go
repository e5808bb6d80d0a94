package peers

import (
	"iter"
	"time"
)

// Invitation is a one-time right to enrol a device.
type Invitation struct {
	ID      ID
	Hash    [32]byte // SHA-256 of the token; the token itself is known to its holder alone
	User    ID
	Created time.Time
	Expires time.Time // once used, when it is forgotten: an hour later
	Used    time.Time // zero if not
	Device  ID        // what it was used for
	// Pending is a TOTP secret shown to one browser and not yet confirmed.
	Pending Sealed
	Browser [32]byte // SHA-256 of that browser's cookie; once used, of the one that used it (from level 2 on)
}

type wireInvitation struct {
	ID      ID       `cbor:"1,keyasint"`
	Hash    [32]byte `cbor:"2,keyasint"`
	User    ID       `cbor:"3,keyasint"`
	Created stamp    `cbor:"4,keyasint"`
	Expires stamp    `cbor:"5,keyasint"`
	Used    stamp    `cbor:"6,keyasint,omitempty"`
	Device  ID       `cbor:"7,keyasint,omitzero"`
	Pending Sealed   `cbor:"8,keyasint,omitempty"`
	Browser [32]byte `cbor:"9,keyasint,omitzero"`
}

// MarshalCBOR gives the canonical encoding.
func (i Invitation) MarshalCBOR() ([]byte, error) {
	return encMode.Marshal(wireInvitation{i.ID, i.Hash, i.User, stampOf(i.Created), stampOf(i.Expires), stampOf(i.Used),
		i.Device, i.Pending, i.Browser})
}

// UnmarshalCBOR reads what MarshalCBOR wrote.
func (i *Invitation) UnmarshalCBOR(b []byte) error {
	w, err := unwire[wireInvitation](b)
	*i = Invitation{w.ID, w.Hash, w.User, w.Created.time(), w.Expires.time(), w.Used.time(), w.Device, w.Pending, w.Browser}
	return err
}

// NewInvitation is the part of an invitation that its maker decides.
type NewInvitation struct {
	ID      ID
	Hash    [32]byte
	Expires time.Time
}

type wireNewInvitation struct {
	ID      ID       `cbor:"1,keyasint"`
	Hash    [32]byte `cbor:"2,keyasint"`
	Expires stamp    `cbor:"3,keyasint,omitempty"`
}

// MarshalCBOR gives the canonical encoding.
func (n NewInvitation) MarshalCBOR() ([]byte, error) {
	if err := checkTime(n.Expires); err != nil {
		return nil, err
	}
	return encMode.Marshal(wireNewInvitation{n.ID, n.Hash, stampOf(n.Expires)})
}

// UnmarshalCBOR reads what MarshalCBOR wrote.
func (n *NewInvitation) UnmarshalCBOR(b []byte) error {
	w, err := unwire[wireNewInvitation](b)
	*n = NewInvitation{w.ID, w.Hash, w.Expires.time()}
	return err
}

// InvitationAdd replaces the user's unused invitations by a new one.
type InvitationAdd struct {
	User       ID            `cbor:"1,keyasint,omitzero"`
	Invitation NewInvitation `cbor:"2,keyasint"`
}

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

// InvitationRemove withdraws an invitation.
type InvitationRemove struct {
	Invitation ID `cbor:"1,keyasint,omitzero"`
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

// invitation returns the invitation with this id and its user, or ErrNotFound.
func (t *tx) invitation(id ID) (*Invitation, *User, error) {
	i := get[Invitation](t, tableInvitations, byID, id[:])
	if i == nil {
		return nil, nil, refuse("invitation_not_found")
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
		return nil, nil, refuse("invitation_used", u.Name, i.Used)
	}
	if t.m.Time >= stampOf(i.Expires) {
		return nil, nil, refuse("invitation_expired", u.Name, i.Expires)
	}
	if err := checkEnabled(u); err != nil {
		return nil, nil, err
	}
	return i, u, nil
}

func (t *tx) checkInvitation(n NewInvitation) error {
	if n.ID.IsZero() || n.Hash == [32]byte{} {
		return refuse("invitation_incomplete")
	}
	if stampOf(n.Expires) <= t.m.Time {
		return refuse("invitation_end_past", n.Expires, t.m.Time.time())
	}
	if stampOf(n.Expires) > maxTime {
		return refuse("invitation_end_far", n.Expires)
	}
	if get[Invitation](t, tableInvitations, byID, n.ID[:]) != nil || get[Invitation](t, tableInvitations, byHash, n.Hash[:]) != nil {
		return refuse("invitation_exists")
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

// Invitation returns the invitation with this id.
func (v *View) Invitation(id ID) *Invitation {
	return get[Invitation](v, tableInvitations, byID, id[:])
}

// InvitationByHash returns the invitation whose token has this SHA-256.
func (v *View) InvitationByHash(h [32]byte) *Invitation {
	return get[Invitation](v, tableInvitations, byHash, h[:])
}

// InvitationsOf yields a user's invitations by id, used ones and ended ones included.
func (v *View) InvitationsOf(user ID) iter.Seq[*Invitation] { return invitationsOf(v, user) }

func invitationsOf(r reader, user ID) iter.Seq[*Invitation] {
	return scan[Invitation](r, tableInvitations, byUser, user[:])
}
