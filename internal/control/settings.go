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

// SetSettings changes settings; nil fields stay. It answers with the settings and the
// devices whose config lacks a route now.
func (s *Service) SetSettings(ctx context.Context, c peers.Configure) (peers.Settings, []string, error) {
	v := s.View()
	if c.Session != nil {
		if err := sessionFits(v, *c.Session); err != nil {
			return peers.Settings{}, nil, err
		}
	}
	index, _, err := s.propose(ctx, c)
	if err != nil {
		return peers.Settings{}, nil, err
	}
	if err := s.opened(ctx, index, "The settings were changed"); err != nil {
		return peers.Settings{}, nil, err
	}
	v = s.View()
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

// sessionFits refuses a session length that would put the current policy in error:
// shorter than the freshness of one of its grants. Faults that it has anyway (a test
// about somebody who left) are no reason.
func sessionFits(v *peers.View, length time.Duration) error {
	set, ok := v.Settings()
	p := v.Policy()
	if !ok || p == nil {
		return nil
	}
	before, _, err := checkPolicy(v, set.PolicyOptions(), p.Text)
	if err != nil {
		return err
	}
	set.Session = length
	after, _, err := checkPolicy(v, set.PolicyOptions(), p.Text)
	if err != nil {
		return err
	}
	for _, e := range after {
		if !e.Warning && !slices.Contains(before, e) {
			return refuse(CodeInvalid,
				"With a session of %v the current policy would be in error (line %d: %s). Change the policy first.", length, e.Line, e.Message)
		}
	}
	return nil
}

// ResetTime ends all sessions and sets State's time to the wall clock's, even if that is
// earlier: the way out when the records reach into the future.
func (s *Service) ResetTime(ctx context.Context) (time.Time, int, error) {
	index, res, err := s.propose(ctx, peers.TimeReset{})
	if err != nil {
		return time.Time{}, 0, err
	}
	return s.View().Time(), res.Count, s.opened(ctx, index, "The time was reset")
}
