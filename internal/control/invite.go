package control

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
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

// newToken makes an invitation's token and the hash under which State knows it.
func newToken() (token string, hash [32]byte, err error) {
	b := make([]byte, inviteTokenSize)
	if _, err := rand.Read(b); err != nil {
		return "", hash, fmt.Errorf("make an invitation: %w", err)
	}
	token = base64.RawURLEncoding.EncodeToString(b)
	return token, sha256.Sum256([]byte(token)), nil
}

// newInvitation makes an invitation that is valid for so long; 0 means the default.
func (s *Service) newInvitation(valid time.Duration) (token string, n peers.NewInvitation, err error) {
	if valid == 0 {
		valid = inviteValid
	}
	if valid < inviteValidMin || valid > inviteValidMax {
		return "", n, refuse(CodeInvalid,
			"An invitation is valid for between %v and %v, not %v.", inviteValidMin, inviteValidMax, valid)
	}
	token, hash, err := newToken()
	if err != nil {
		return "", n, internal("make an invitation", err)
	}
	return token, peers.NewInvitation{ID: newID(), Hash: hash, Expires: s.now().Add(valid)}, nil
}

// invite is the answer that holds the link.
func (s *Service) invite(v *peers.View, user, token string, expires time.Time) Invite {
	set, _ := v.Settings()
	return Invite{User: user, Link: set.URL + "/enroll#" + token, Expires: expires}
}

// invitation finds the one that a token is for. It says why a token is worth nothing,
// which only its holder can ask.
func (s *Service) invitation(v *peers.View, token string) (*peers.Invitation, *peers.User, error) {
	var inv *peers.Invitation
	// The look-up by hash takes no longer for a token that is nearly right.
	if len(token) == base64.RawURLEncoding.EncodedLen(inviteTokenSize) {
		inv = v.InvitationByHash(sha256.Sum256([]byte(token)))
	}
	if inv == nil {
		return nil, nil, refuse(CodeInvitationUnknown,
			"This invitation is not known here: the link is incomplete, or was replaced by a newer one, or ended some time ago. "+
				"Open the newest link you were given in full, or ask for a new one.")
	}
	if !s.Time(v).Before(inv.Expires) {
		if !inv.Used.IsZero() {
			return nil, nil, invitationUsed()
		}
		return nil, nil, refuse(CodeInvitationExpired,
			"This invitation ended on %s. Ask for a new one.", stamp(inv.Expires))
	}
	u := v.User(inv.User)
	if u == nil {
		return nil, nil, refuse(CodeInvitationUnknown, "The person this invitation was for is not known any more. Ask for a new one.")
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
		return refuse(CodeInvitationExpired, "This invitation has ended. Ask for a new one.")
	}
	return err
}

func invitationUsed() *Error {
	return refuse(CodeInvitationUsed,
		"This invitation has been used already: it is good for one device. Ask for a new one for another device; "+
			"if it was not you who used it, tell an administrator now.")
}
