package main

import (
	"context"
	"net/netip"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"google.golang.org/protobuf/types/known/durationpb"

	vpnv1 "vpnd/proto/vpn/v1"
)

type settingsCmd struct {
	Show settingsShowCmd `cmd:"" default:"1" help:"Show the settings, and where each comes from."`
	Set  settingsSetCmd  `cmd:"" help:"Change settings; what is not named stays."`
}

type settingsShowCmd struct{}

func (c *settingsShowCmd) Run(ctx context.Context, a *app) error {
	r, err := a.api.gateway().GetStatus(ctx, &vpnv1.GetStatusRequest{})
	if err != nil {
		return err
	}
	if a.json {
		return a.printJSON(r.Settings)
	}
	a.settings(r.Settings)
	return nil
}

func (a *app) settings(s *vpnv1.Settings) {
	from := map[string]cell{}
	longest := 0 // of the texts in the last column
	for _, o := range s.GetOrigins() {
		c := cell{o.GetFrom(), faint}
		if o.GetPinned() { // settings set refuses it
			c = text("pinned by " + o.GetFrom())
		}
		from[o.GetSetting()] = c
		longest = max(longest, utf8.RuneCountInString(clean(c.text)))
	}
	t := newTable("SETTING", "VALUE", "FROM")
	for _, r := range []struct {
		name   string
		values []string // a line each
	}{
		{"endpoint", []string{s.GetEndpoint()}},
		{"url", []string{s.GetUrl()}},
		{"session", []string{length(s.GetSession().AsDuration())}},
		{"network", s.GetNetwork()},
		{"routes", orNone(s.GetRoutes())},
		{"dns", orNone(s.GetDns())},
		{"mtu", []string{mtuText(s.GetMtu())}},
		{"masquerade", []string{onOff(s.GetMasquerade())}},
	} {
		for i, v := range r.values {
			name, origin := text(r.name), from[r.name]
			if i > 0 {
				name, origin = cell{}, cell{}
			}
			// On a terminal that is too narrow for both, where it comes from stands below the value.
			if a.columns > 0 && i == 0 && len("masquerade")+2+utf8.RuneCountInString(clean(v))+2+longest > a.columns {
				t.addOver(name, text(v))
				t.add(cell{}, cell{}, origin)
				continue
			}
			t.add(name, text(v), origin)
		}
	}
	t.draw(a.ui)
}

func orNone(s []string) []string {
	if len(s) == 0 {
		return []string{"none"}
	}
	return s
}

func mtuText(mtu uint32) string {
	if mtu == 0 {
		return "auto"
	}
	return strconv.FormatUint(uint64(mtu), 10)
}

func onOff(b bool) string {
	if b {
		return "on"
	}
	return "off"
}

type settingsSetCmd struct {
	Endpoint   *string        `help:"What clients dial." placeholder:"HOST:PORT"`
	URL        *string        `name:"url" help:"How people reach the portal." placeholder:"URL"`
	Session    *time.Duration `help:"How long a session lasts; sessions that are open keep their end." placeholder:"DURATION"`
	Routes     *string        `help:"Networks behind the gateway, or none. Devices need a new config for a new one." placeholder:"CIDR,…"`
	Masquerade *string        `help:"Whether what devices send to a resource comes from the gateway's address: on or off. Off, the resource's network needs a route to the tunnel's network through the gateway." enum:"on,off" placeholder:"on|off"`
	MTU        *string        `name:"mtu" help:"The tunnel's MTU, also in configs; auto leaves it to the gateway's line." placeholder:"BYTES|auto"`
	DNS        *string        `name:"dns" help:"DNS servers for the configs, or none. The apps send them every query." placeholder:"ADDRESS,…"`
}

func (c *settingsSetCmd) Run(ctx context.Context, a *app) error {
	if *c == (settingsSetCmd{}) {
		return usagef("settings set: name at least one setting (vpnctl settings set --help)")
	}
	req := &vpnv1.SetSettingsRequest{Endpoint: c.Endpoint, Url: c.URL}
	if c.Session != nil {
		req.Session = durationpb.New(*c.Session)
	}
	if c.Routes != nil {
		req.SetRoutes, req.Routes = true, words(*c.Routes)
		for i, r := range req.Routes {
			if a, err := netip.ParseAddr(r); err == nil && a.Zone() == "" { // one host
				req.Routes[i] = netip.PrefixFrom(a, a.BitLen()).String()
			} else if _, err := netip.ParsePrefix(r); err != nil {
				return usagef("--routes: %q is no network: want an address, a slash and a length, as in 192.168.1.0/24", r)
			}
		}
	}
	if c.DNS != nil {
		req.SetDns, req.Dns = true, words(*c.DNS)
		for _, d := range req.Dns {
			if _, err := netip.ParseAddr(d); err != nil {
				return usagef("--dns: %q is no address", d)
			}
		}
	}
	if c.Masquerade != nil {
		on := *c.Masquerade == "on"
		req.Masquerade = &on
	}
	if c.MTU != nil {
		mtu, err := parseMTU(*c.MTU)
		if err != nil {
			return err
		}
		req.Mtu = &mtu
	}
	r, err := a.api.gateway().SetSettings(ctx, req)
	if err != nil {
		return err
	}
	if a.json {
		return a.printJSON(r)
	}
	a.settings(r.Settings)
	if len(r.Outdated) > 0 {
		a.notef("%s a new config to reach every route: %s", need(len(r.Outdated)), joined(r.Outdated))
	}
	return nil
}

func parseMTU(s string) (uint32, error) {
	if s == "auto" {
		return 0, nil
	}
	n, err := strconv.ParseUint(s, 10, 16)
	if err != nil || n == 0 {
		return 0, usagef("--mtu: %q is no MTU: want a number of bytes, as 1380, or auto", s)
	}
	return uint32(n), nil
}

func need(n int) string {
	if n == 1 {
		return "1 device needs"
	}
	return number(n, "device") + " need"
}

// words splits at commas; "none" and "" are no words.
func words(s string) []string {
	if s = strings.TrimSpace(s); s == "" || s == "none" {
		return nil
	}
	list := strings.Split(s, ",")
	for i := range list {
		list[i] = strings.TrimSpace(list[i])
	}
	return list
}
