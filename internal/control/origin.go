package control

import (
	"slices"
	"strings"

	"vpnd/peers"
)

// Origin is where the value of a setting comes from, as this gateway sees it: "default",
// "cluster" (somebody has set it), or what pins it here.
type Origin struct {
	Setting string // as the API names it
	From    string
	Pinned  bool
}

// Origins are those of all settings. A flag outweighs the environment, that the file, that
// the cluster, and that the default.
func (s *Service) Origins(set peers.Settings) []Origin {
	byDefault := map[string]bool{
		"routes":     len(set.Routes) == 0,
		"dns":        len(set.DNS) == 0,
		"session":    set.Session == defaultSession,
		"mtu":        set.MTU == 0,
		"masquerade": set.Masquerade,
	}
	var out []Origin
	for _, name := range []string{"endpoint", "url", "session", "network", "routes", "dns", "mtu", "masquerade"} {
		o := Origin{Setting: name, From: "cluster"}
		if by, ok := s.pinned[name]; ok {
			o.From, o.Pinned = by, true
		} else if byDefault[name] {
			o.From = "default"
		}
		out = append(out, o)
	}
	return out
}

// checkPinned refuses to change what this gateway would change back at its next start.
func (s *Service) checkPinned(c peers.Configure) error {
	var names []string
	for name, change := range map[string]bool{"endpoint": c.Endpoint != nil, "url": c.URL != nil, "routes": c.Routes != nil} {
		if by, ok := s.pinned[name]; ok && change {
			names = append(names, name+" ("+by+")")
		}
	}
	if len(names) == 0 {
		return nil
	}
	slices.Sort(names)
	return Refuse("settings_pinned", strings.Join(names, ", "))
}
