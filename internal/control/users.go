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
	return nil, Refuse("no_user", name)
}

// userAfter is a user as she is after what was asked for.
func (s *Service) userAfter(a Answer, name string) (*peers.User, error) {
	if u := s.View().User(a.User); u != nil {
		return u, nil
	}
	return nil, Refuse("no_user", name)
}

// AddUser asks for a new user with an invitation.
type AddUser struct {
	Name string
	Invitation
}

// AddUser adds a user and her first invitation, valid for so long (0: 48 h).
func (s *Service) AddUser(ctx context.Context, name string, valid time.Duration) (*peers.User, Invite, error) {
	if err := peers.CheckUserName(name); err != nil {
		return nil, Invite{}, refused(err)
	}
	token, inv, err := newInvitation(valid)
	if err != nil {
		return nil, Invite{}, err
	}
	a, err := s.ask(ctx, AddUser{Name: name, Invitation: inv})
	if err != nil {
		return nil, Invite{}, err
	}
	u, err := s.userAfter(a, name)
	if err != nil {
		return nil, Invite{}, err
	}
	return u, s.invite(u.Name, token, a.At), nil
}

func (q AddUser) decide(ctx context.Context, d *decision) (Answer, error) {
	inv := q.new(d.now())
	index, res, err := d.propose(ctx, peers.UserAdd{ID: newID(), Name: q.Name, Invitation: &inv})
	if err != nil {
		return Answer{}, err
	}
	u, err := userOf(res)
	if err != nil {
		return Answer{}, err
	}
	return Answer{Index: index, User: u.ID, At: endOf(res, inv)}, nil
}

// InviteUser asks for an invitation in place of the unused ones.
type InviteUser struct {
	Name string
	Invitation
}

// InviteUser replaces the user's unused invitations by a new one.
func (s *Service) InviteUser(ctx context.Context, name string, valid time.Duration) (Invite, error) {
	token, inv, err := newInvitation(valid)
	if err != nil {
		return Invite{}, err
	}
	a, err := s.ask(ctx, InviteUser{Name: name, Invitation: inv})
	if err != nil {
		return Invite{}, err
	}
	u, err := s.userAfter(a, name)
	if err != nil {
		return Invite{}, err
	}
	return s.invite(u.Name, token, a.At), nil
}

func (q InviteUser) decide(ctx context.Context, d *decision) (Answer, error) {
	u, err := UserNamed(d.View(), q.Name)
	if err != nil {
		return Answer{}, err
	}
	inv := q.new(d.now())
	index, res, err := d.propose(ctx, peers.InvitationAdd{User: u.ID, Invitation: inv})
	return Answer{Index: index, User: u.ID, At: endOf(res, inv)}, err
}

// EnableUser asks to enable or to disable a user.
type EnableUser struct {
	Name    string
	Enabled bool
}

// SetUserEnabled enables or disables a user.
func (s *Service) SetUserEnabled(ctx context.Context, name string, enabled bool) (*peers.User, []Closed, error) {
	a, err := s.ask(ctx, EnableUser{Name: name, Enabled: enabled})
	if err != nil {
		return nil, nil, err
	}
	closed := s.closed(ctx, a.Index)
	u, err := s.userAfter(a, name)
	if err != nil {
		return nil, nil, err
	}
	return u, closed, nil
}

func (q EnableUser) decide(ctx context.Context, d *decision) (Answer, error) {
	u, err := UserNamed(d.View(), q.Name)
	if err != nil {
		return Answer{}, err
	}
	index, _, err := d.propose(ctx, peers.UserEnable{User: u.ID, Enabled: q.Enabled})
	return Answer{Index: index, User: u.ID}, err
}

// RemoveUser asks to remove a user.
type RemoveUser struct{ Name string }

// RemoveUser removes a user with her devices, and says how many those were.
func (s *Service) RemoveUser(ctx context.Context, name string) (devices int, closed []Closed, err error) {
	a, err := s.ask(ctx, RemoveUser{Name: name})
	if err != nil {
		return 0, nil, err
	}
	return a.Count, s.closed(ctx, a.Index), nil
}

func (q RemoveUser) decide(ctx context.Context, d *decision) (Answer, error) {
	if first, ok := d.before(); ok {
		return told(first)
	}
	u, err := UserNamed(d.View(), q.Name)
	if err != nil {
		return Answer{}, err
	}
	index, res, err := d.propose(ctx, peers.UserRemove{User: u.ID})
	return Answer{Index: index, Count: res.Count}, err
}

// UnlockUser asks to lift a user's lock.
type UnlockUser struct{ Name string }

// UnlockUser lifts the lock that wrong codes have caused.
func (s *Service) UnlockUser(ctx context.Context, name string) (*peers.User, error) {
	a, err := s.ask(ctx, UnlockUser{Name: name})
	if err != nil {
		return nil, err
	}
	return s.userAfter(a, name)
}

func (q UnlockUser) decide(ctx context.Context, d *decision) (Answer, error) {
	u, err := UserNamed(d.View(), q.Name)
	if err != nil {
		return Answer{}, err
	}
	index, _, err := d.propose(ctx, peers.UserUnlock{User: u.ID})
	return Answer{Index: index, User: u.ID}, err
}

// ResetTOTP asks to take a user's authenticator away, and for an invitation.
type ResetTOTP struct {
	Name string
	Invitation
}

// ResetTOTP takes the user's authenticator away, ends her sessions and invites her to set
// up another.
func (s *Service) ResetTOTP(ctx context.Context, name string, valid time.Duration) (Invite, []Closed, error) {
	token, inv, err := newInvitation(valid)
	if err != nil {
		return Invite{}, nil, err
	}
	a, err := s.ask(ctx, ResetTOTP{Name: name, Invitation: inv})
	if err != nil {
		return Invite{}, nil, err
	}
	u, err := s.userAfter(a, name)
	if err != nil {
		return Invite{}, nil, err
	}
	return s.invite(u.Name, token, a.At), s.closed(ctx, a.Index), nil
}

func (q ResetTOTP) decide(ctx context.Context, d *decision) (Answer, error) {
	u, err := UserNamed(d.View(), q.Name)
	if err != nil {
		return Answer{}, err
	}
	if _, _, err := d.propose(ctx, peers.TOTPReset{User: u.ID}); err != nil {
		return Answer{}, err
	}
	inv := q.new(d.now())
	index, res, err := d.propose(ctx, peers.InvitationAdd{User: u.ID, Invitation: inv})
	return Answer{Index: index, User: u.ID, At: endOf(res, inv)}, err
}
