package control

import (
	"context"
	"net/netip"
	"slices"
	"time"

	"vpnd/peers"
)

// TunnelURL is where the portal is inside the tunnel.
func (s *Service) TunnelURL() string {
	set, ok := s.View().Settings()
	if !ok || len(set.Network) == 0 {
		return ""
	}
	return "http://" + hostOf(set.GatewayAddrs()[0]) + "/"
}

// hostOf spells an address as a URL's host.
func hostOf(a netip.Addr) string {
	if a.Is4() {
		return a.String()
	}
	return "[" + a.String() + "]"
}

// URL is the public portal's.
func (s *Service) URL() string {
	set, _ := s.View().Settings()
	return set.URL
}

// SetSettings asks to change settings: nil fields stay.
type SetSettings struct{ peers.Configure }

// SetSettings changes settings; nil fields stay. It answers with the settings and the
// devices whose config lacks a route now.
func (s *Service) SetSettings(ctx context.Context, c peers.Configure) (peers.Settings, []string, error) {
	if err := s.checkPinned(c); err != nil {
		return peers.Settings{}, nil, err
	}
	a, err := s.ask(ctx, SetSettings{c})
	if err != nil {
		return peers.Settings{}, nil, err
	}
	if err := s.opened(ctx, a.Index, "settings_not_yet"); err != nil {
		return peers.Settings{}, nil, err
	}
	v := s.View()
	set, _ := v.Settings()
	var names []string
	for u := range v.Users() {
		for d := range v.DevicesOf(u.ID) {
			if Outdated(d, set) {
				names = append(names, u.Name+"/"+d.Name)
			}
		}
	}
	return set, names, nil
}

func (q SetSettings) decide(ctx context.Context, d *decision) (Answer, error) {
	if q.Session != nil {
		if err := sessionFits(d.View(), *q.Session); err != nil {
			return Answer{}, err
		}
	}
	index, _, err := d.propose(ctx, q.Configure.For(d.View()))
	return Answer{Index: index}, err
}

// sessionFits refuses a session length that would put the current policy in error:
// shorter than the freshness of one of its grants. Faults that it has anyway (a test
// about somebody who left) are no reason.
func sessionFits(v *peers.View, length time.Duration) error {
	set, ok := v.Settings()
	p := v.Policy()
	if !ok || p == nil {
		return nil
	}
	before, _, err := checkPolicy(v, set.Session, p.Text)
	if err != nil {
		return err
	}
	after, _, err := checkPolicy(v, length, p.Text)
	if err != nil {
		return err
	}
	for _, e := range after {
		if !e.Warning && !slices.Contains(before, e) {
			return Refuse("policy_needs_session", length, e.Line, e.Message)
		}
	}
	return nil
}

// ResetTime asks to end all sessions and to set State's time anew.
type ResetTime struct{}

// ResetTime ends all sessions and sets State's time to the wall clock's, even if that is
// earlier: the way out when the records reach into the future.
func (s *Service) ResetTime(ctx context.Context) (time.Time, int, error) {
	a, err := s.ask(ctx, ResetTime{})
	if err != nil {
		return time.Time{}, 0, err
	}
	return s.View().Time(), a.Count, s.opened(ctx, a.Index, "time_not_yet")
}

func (ResetTime) decide(ctx context.Context, d *decision) (Answer, error) {
	index, res, err := d.propose(ctx, peers.TimeReset{})
	return Answer{Index: index, Count: res.Count}, err
}
