package control

import (
	"context"
	"net/netip"
	"time"

	"vpnd/acl/language"
	"vpnd/acl/rules"
	"vpnd/peers"
)

// SessionStatus is what the tunnel's page shows.
type SessionStatus struct {
	User, Device string
	Active       bool
	Expires      time.Time
	Reaches      []rules.Reach
	Policy       *language.Policy // that they are of, for what it says of resources; may be nil
}

// plain is an address as State knows it: no IPv4 in IPv6, no zone.
func plain(a netip.Addr) netip.Addr { return a.Unmap().WithZone("") }

// ownerOf names the device that has this tunnel address, for which WireGuard vouches.
func ownerOf(v *peers.View, from netip.Addr) (*peers.Device, *peers.User, error) {
	d := v.DeviceByAddr(plain(from))
	if d == nil {
		return nil, nil, Refuse("address_of_nobody", plain(from))
	}
	u := v.User(d.User)
	if u == nil {
		return nil, nil, Refuse("owner_gone")
	}
	if u.Disabled {
		return nil, nil, userDisabled(u)
	}
	if d.Disabled {
		return nil, nil, Refuse("device_disabled", u.Name+"/"+d.Name)
	}
	return d, u, nil
}

// LiveSession is the device's session if it has not ended at now.
func LiveSession(v *peers.View, device peers.ID, now time.Time) *peers.Session {
	if ss := v.Session(device); ss != nil && now.Before(ss.Until) {
		return ss
	}
	return nil
}

// CodeAt is when a session's newest code was accepted.
func CodeAt(ss *peers.Session) time.Time {
	if len(ss.Codes) == 0 {
		return ss.Started
	}
	return ss.Codes[len(ss.Codes)-1].At
}

func (s *Service) status(v *peers.View, d *peers.Device, u *peers.User, from netip.Addr) SessionStatus {
	now := s.Time(v)
	st := SessionStatus{User: u.Name, Device: d.Name}
	var worth rules.Session
	if ss := LiveSession(v, d.ID, now); ss != nil {
		st.Active, st.Expires = true, ss.Until
		worth = rules.Session{Until: ss.Until, Code: CodeAt(ss)}
	}
	if ruleset := s.gateway.Rules(); ruleset != nil {
		st.Reaches = ruleset.Reaches(plain(from), worth, now)
		st.Policy = ruleset.Policy()
	}
	return st
}

// Session answers for the device that has this tunnel address.
func (s *Service) Session(_ context.Context, from netip.Addr) (SessionStatus, error) {
	v := s.View()
	d, u, err := ownerOf(v, from)
	if err != nil {
		return SessionStatus{}, err
	}
	return s.status(v, d, u, from), nil
}

// SignIn asks for a session for the device at the request's Source.
type SignIn struct{ Code string }

// SignIn has a code checked that came through the tunnel, and answers when the plane is
// open.
func (s *Service) SignIn(ctx context.Context, from netip.Addr, code string) (SessionStatus, error) {
	a, err := s.askFrom(ctx, plain(from), SignIn{Code: code})
	if err != nil {
		return SessionStatus{}, err
	}
	if err := s.opened(ctx, a.Index, "sign_in_not_yet"); err != nil {
		return SessionStatus{}, err
	}
	return s.Session(ctx, from)
}

func (q SignIn) decide(ctx context.Context, d *decision) (Answer, error) {
	_, owner, err := ownerOf(d.View(), d.source)
	if err != nil {
		return Answer{}, err
	}
	unlock, err := d.lockUser(ctx, owner.ID)
	if err != nil {
		return Answer{}, err
	}
	defer unlock()

	v := d.View() // what held before the lock may have changed
	dev, u, err := ownerOf(v, d.source)
	if err != nil {
		return Answer{}, err
	}
	if u.ID != owner.ID { // the address went to another user's device: hers is another lock
		return Answer{}, Refuse("device_changed_hands")
	}
	if len(u.TOTP) == 0 {
		return Answer{}, Refuse("user_not_enrolled", u.Name)
	}
	d.actor = u.Name
	if first, ok, err := d.evaluated(ctx, u); ok {
		return Answer{Index: first.Index}, err
	}
	step, err := d.checkCode(ctx, v, u, u.TOTP, q.Code)
	if err != nil {
		return Answer{}, err
	}
	index, _, err := d.commit(ctx, peers.Login{Device: dev.ID, Step: step})
	if err != nil {
		return Answer{}, d.codeRefused(u, err)
	}
	return Answer{Index: index}, nil
}

// SignOut asks for the end of the session of the device at the request's Source.
type SignOut struct{}

// SignOut ends the device's session, and answers when the plane is closed.
func (s *Service) SignOut(ctx context.Context, from netip.Addr) error {
	v := s.View()
	d, _, err := ownerOf(v, from)
	if err != nil {
		return err
	}
	index := v.Index()
	if v.Session(d.ID) != nil {
		a, err := s.askFrom(ctx, plain(from), SignOut{})
		if err != nil {
			return err
		}
		index = a.Index
	}
	// Without a session there is nothing to commit: such a device must not be able to fill
	// the log. What ended it may still be on its way to the plane.
	return s.opened(ctx, index, "sign_out_not_yet")
}

func (SignOut) decide(ctx context.Context, d *decision) (Answer, error) {
	dev, u, err := ownerOf(d.View(), d.source)
	if err != nil {
		return Answer{}, err
	}
	d.actor = u.Name
	index, _, err := d.propose(ctx, peers.SessionEnd{Device: dev.ID})
	return Answer{Index: index}, err
}

// Who is the holder of a tunnel address.
type Who struct {
	User, Device string
	Address      netip.Addr
	Tags         []string
	Expires      time.Time // zero: no live session
}

// WhoIs names the holder of a tunnel address. A disabled one is none.
func (s *Service) WhoIs(_ context.Context, a netip.Addr) (Who, error) {
	v := s.View()
	d, u, err := ownerOf(v, a)
	if err != nil {
		return Who{}, Refuse("address_not_enabled", plain(a))
	}
	w := Who{User: u.Name, Device: d.Name, Address: plain(a), Tags: d.Tags}
	if ss := LiveSession(v, d.ID, s.Time(v)); ss != nil {
		w.Expires = ss.Until
	}
	return w, nil
}
