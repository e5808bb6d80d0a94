package control

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"time"

	"vpnd/peers"
)

const (
	inviteTokenSize = 32 // random bytes
	inviteValid     = 48 * time.Hour
	inviteValidMin  = time.Minute
	inviteValidMax  = 30 * 24 * time.Hour
)

// Invite is a new invitation as its maker sees it, once.
type Invite struct {
	User    string
	Link    string // secret: the token is in its fragment
	Expires time.Time
}

// Invitation is what an edge decides of a new invitation: it makes the token, so that a
// request which is sent again is for the same one, and the leader never has it.
type Invitation struct {
	ID    peers.ID
	Hash  [32]byte // of the token
	Valid time.Duration
}

// newInvitation makes an invitation that is valid for so long; 0 means the default.
func newInvitation(valid time.Duration) (token string, n Invitation, err error) {
	if valid == 0 {
		valid = inviteValid
	}
	if valid < inviteValidMin || valid > inviteValidMax {
		return "", n, Refuse("invitation_length", valid, inviteValidMin, inviteValidMax)
	}
	b := make([]byte, inviteTokenSize)
	if _, err := rand.Read(b); err != nil {
		return "", n, internal("make an invitation", err)
	}
	token = base64.RawURLEncoding.EncodeToString(b)
	return token, Invitation{ID: newID(), Hash: sha256.Sum256([]byte(token)), Valid: valid}, nil
}

// new is the invitation as State takes it, from now on.
func (i Invitation) new(now time.Time) peers.NewInvitation {
	return peers.NewInvitation{ID: i.ID, Hash: i.Hash, Expires: now.Add(i.Valid)}
}

// invite is the answer that holds the link.
func (s *Service) invite(user, token string, expires time.Time) Invite {
	return Invite{User: user, Link: s.URL() + "/enroll#" + token, Expires: expires}
}

// invitation finds the one that a token is for. It says why a token is worth nothing,
// which only its holder can ask.
func (n *node) invitation(v *peers.View, token string) (*peers.Invitation, *peers.User, error) {
	var inv *peers.Invitation
	// The look-up by hash takes no longer for a token that is nearly right.
	if len(token) == base64.RawURLEncoding.EncodedLen(inviteTokenSize) {
		inv = v.InvitationByHash(sha256.Sum256([]byte(token)))
	}
	if inv == nil {
		return nil, nil, Refuse("invitation_unknown")
	}
	if !n.Time(v).Before(inv.Expires) {
		if !inv.Used.IsZero() {
			return nil, nil, invitationUsed()
		}
		return nil, nil, Refuse("invitation_ended", inv.Expires)
	}
	u := v.User(inv.User)
	if u == nil {
		return nil, nil, Refuse("invitation_of_nobody")
	}
	if u.Disabled {
		return nil, nil, userDisabled(u)
	}
	return inv, u, nil
}

// invitationRefused gives a refusal of State the invitation's own word, when it was
// used or ended between the look at it and the command.
func invitationRefused(err error) error {
	switch {
	case errors.Is(err, peers.ErrUsed):
		return invitationUsed()
	case errors.Is(err, peers.ErrExpired):
		if e, ok := errors.AsType[*Error](err); ok {
			return Refuse("invitation_ended", e.Values()["at"])
		}
	}
	return err
}

func invitationUsed() *Error { return Refuse("invitation_spent") }
