package control

import (
	"context"
	"time"

	"vpnd/peers"
)

// UserNamed finds a user.
func UserNamed(v *peers.View, name string) (*peers.User, error) {
	if u := v.UserByName(name); u != nil {
		return u, nil
	}
	return nil, notFound("user", name, "vpnctl user ls")
}

// AddUser adds a user and her first invitation, valid for so long (0: 48 h).
func (s *Service) AddUser(ctx context.Context, name string, valid time.Duration) (*peers.User, Invite, error) {
	if err := peers.CheckUserName(name); err != nil {
		return nil, Invite{}, refused(err)
	}
	token, inv, err := s.newInvitation(valid)
	if err != nil {
		return nil, Invite{}, err
	}
	_, res, err := s.propose(ctx, peers.UserAdd{ID: newID(), Name: name, Invitation: &inv})
	if err != nil {
		return nil, Invite{}, err
	}
	return res.User, s.invite(s.View(), res.User.Name, token, inv.Expires), nil
}

// InviteUser replaces the user's unused invitations by a new one.
func (s *Service) InviteUser(ctx context.Context, name string, valid time.Duration) (Invite, error) {
	v := s.View()
	u, err := UserNamed(v, name)
	if err != nil {
		return Invite{}, err
	}
	token, inv, err := s.newInvitation(valid)
	if err != nil {
		return Invite{}, err
	}
	if _, _, err := s.propose(ctx, peers.InvitationAdd{User: u.ID, Invitation: inv}); err != nil {
		return Invite{}, err
	}
	return s.invite(v, u.Name, token, inv.Expires), nil
}

// SetUserEnabled enables or disables a user.
func (s *Service) SetUserEnabled(ctx context.Context, name string, enabled bool) (*peers.User, []Closed, error) {
	u, err := UserNamed(s.View(), name)
	if err != nil {
		return nil, nil, err
	}
	index, _, err := s.propose(ctx, peers.UserEnable{User: u.ID, Enabled: enabled})
	if err != nil {
		return nil, nil, err
	}
	closed := s.closed(ctx, index)
	if u, err = UserNamed(s.View(), name); err != nil {
		return nil, nil, err
	}
	return u, closed, nil
}

// RemoveUser removes a user with her devices, and says how many those were.
func (s *Service) RemoveUser(ctx context.Context, name string) (devices int, closed []Closed, err error) {
	v := s.View()
	u, err := UserNamed(v, name)
	if err != nil {
		return 0, nil, err
	}
	for range v.DevicesOf(u.ID) {
		devices++
	}
	index, _, err := s.propose(ctx, peers.UserRemove{User: u.ID})
	if err != nil {
		return 0, nil, err
	}
	return devices, s.closed(ctx, index), nil
}

// UnlockUser lifts the lock that wrong codes have caused.
func (s *Service) UnlockUser(ctx context.Context, name string) (*peers.User, error) {
	u, err := UserNamed(s.View(), name)
	if err != nil {
		return nil, err
	}
	if _, _, err := s.propose(ctx, peers.UserUnlock{User: u.ID}); err != nil {
		return nil, err
	}
	return UserNamed(s.View(), name)
}

// ResetTOTP takes the user's authenticator away, ends her sessions and invites her to set
// up another.
func (s *Service) ResetTOTP(ctx context.Context, name string, valid time.Duration) (Invite, []Closed, error) {
	v := s.View()
	u, err := UserNamed(v, name)
	if err != nil {
		return Invite{}, nil, err
	}
	token, inv, err := s.newInvitation(valid) // before anything is taken away: it may be refused
	if err != nil {
		return Invite{}, nil, err
	}
	index, _, err := s.propose(ctx, peers.TOTPReset{User: u.ID})
	if err != nil {
		return Invite{}, nil, err
	}
	if _, _, err := s.propose(ctx, peers.InvitationAdd{User: u.ID, Invitation: inv}); err != nil {
		return Invite{}, nil, err
	}
	return s.invite(v, u.Name, token, inv.Expires), s.closed(ctx, index), nil
}
