package control

import (
	"context"
	"strings"

	"vpnd/peers"
)

// findSpellings looks once, when the state takes no more of them, for devices whose key has
// a second spelling: an earlier vpnd let those in, and one of them may be a key that was
// revoked. It looks at all devices, so it does not wait for somebody to ask.
func (s *Service) findSpellings(ctx context.Context) {
	v := s.View()
	for {
		if _, pending := v.Upgrade(""); v.Index() > 0 && !pending {
			break
		}
		select {
		case <-ctx.Done():
			return
		case <-v.Changed():
			v = s.View()
		}
	}
	var found []peers.Device
	for d := range v.SecondSpellings() {
		found = append(found, *d)
	}
	s.spelled.Store(&found)
	for _, name := range s.spellings(v) {
		user, device, _ := strings.Cut(name, "/")
		s.log.Warn("a key has a second spelling, which may have been revoked; give the device a new one: vpnctl device rotate "+name, "what", "device.key", "user", user, "device", device)
	}
}

// spellings names those found that have the same key still.
func (s *Service) spellings(v *peers.View) (names []string) {
	found := s.spelled.Load()
	if found == nil {
		return nil
	}
	for _, f := range *found {
		d := v.Device(f.ID)
		if d == nil || d.PublicKey != f.PublicKey {
			continue
		}
		if u := v.User(d.User); u != nil {
			names = append(names, u.Name+"/"+d.Name)
		}
	}
	return names
}
