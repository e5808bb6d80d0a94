package peers

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestInit(t *testing.T) {
	c := emptyCluster(t)
	refused(c, UserAdd{ID: id("alice"), Name: "alice"}, ErrInvalid) // Init comes first
	for name, break_ := range map[string]func(*Settings){
		"no cluster":        func(s *Settings) { s.Cluster = ID{} },
		"no key":            func(s *Settings) { s.PublicKey = Key{} },
		"low-order key":     func(s *Settings) { s.PublicKey = lowOrder[2] },
		"no network":        func(s *Settings) { s.Network = nil },
		"IPv6 first":        func(s *Settings) { slices.Reverse(s.Network) },
		"two of IPv4":       func(s *Settings) { s.Network[1] = netip.MustParsePrefix("10.78.0.0/16") },
		"bits behind":       func(s *Settings) { s.Network[0] = netip.MustParsePrefix("10.77.0.1/16") },
		"too small":         func(s *Settings) { s.Network[0] = netip.MustParsePrefix("10.77.0.0/30") },
		"mapped":            func(s *Settings) { s.Network[0] = netip.MustParsePrefix("::ffff:10.77.0.0/112") },
		"bad endpoint":      func(s *Settings) { s.Endpoint = "vpn.example.com" },
		"bad URL":           func(s *Settings) { s.URL = "http://vpn.example.com" },
		"bad route":         func(s *Settings) { s.Routes = []netip.Prefix{netip.MustParsePrefix("10.77.1.0/24")} },
		"bad DNS":           func(s *Settings) { s.DNS = []netip.Addr{netip.MustParseAddr("fe80::1%eth0")} },
		"session too short": func(s *Settings) { s.Session = 0 },
		"session too long":  func(s *Settings) { s.Session = 32 * 24 * time.Hour },
	} {
		s := settings()
		break_(&s)
		if r := c.do(Init{s, "{}"}); r.Err == nil {
			t.Errorf("Init with %s is accepted", name)
		}
	}
	s := settings()
	s.CACert = make([]byte, maxCert+1)
	refused(c, Init{s, "{}"}, ErrLimit)
	refused(c, Init{settings(), strings.Repeat(" ", maxPolicy+1)}, ErrLimit)
	refused(c, Init{settings(), "{\x00}"}, ErrInvalid)

	r := must(c, Init{settings(), "{}"})
	if r.Policy.Version != 1 || r.Policy.Text != "{}" || r.Policy.By != "test" {
		t.Errorf("the first policy is %+v", r.Policy)
	}
	got, ok := c.View().Settings()
	if !ok || got.Endpoint != settings().Endpoint || !got.Created.Equal(start) {
		t.Errorf("the settings are %+v", got)
	}
	if g := addresses(got.GatewayAddrs()); g != "10.77.0.1,fd00:77::1" {
		t.Errorf("the gateway has %s", g)
	}
	refused(c, Init{settings(), "{}"}, ErrExists)
}

func TestConfigure(t *testing.T) {
	c := newCluster(t)
	bad := func(s string) *string { return &s }
	refused(c, Configure{Endpoint: bad("")}, ErrInvalid)
	refused(c, Configure{Endpoint: bad("vpn.example.com:51820\nPostUp = x")}, ErrInvalid)
	refused(c, Configure{URL: bad("https://vpn.example.com/")}, ErrInvalid)
	long := time.Duration(maxSession + 1)
	refused(c, Configure{Session: &long}, ErrInvalid)
	twice := []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24"), netip.MustParsePrefix("192.0.2.0/24")}
	refused(c, Configure{Routes: &twice}, ErrInvalid)
	inside := []netip.Prefix{netip.MustParsePrefix("fd00:77::/80")}
	refused(c, Configure{Routes: &inside}, ErrInvalid)
	var many []netip.Prefix
	for i := range maxRoutes + 1 {
		many = append(many, netip.PrefixFrom(netip.AddrFrom4([4]byte{192, 0, byte(i), 0}), 24))
	}
	refused(c, Configure{Routes: &many}, ErrLimit)
	servers := slices.Repeat([]netip.Addr{netip.MustParseAddr("192.0.2.53")}, maxDNS+1)
	refused(c, Configure{DNS: &servers}, ErrLimit)
	none := []netip.Addr{{}}
	refused(c, Configure{DNS: &none}, ErrInvalid)

	for _, mtu := range []uint16{1, 575, 1279, 9001, 65535} {
		refused(c, Configure{MTU: &mtu}, ErrInvalid)
	}

	v := c.View()
	session, routes := time.Hour, twice[:1]
	must(c, Configure{Session: &session, Routes: &routes})
	s, _ := c.View().Settings()
	if s.Session != session || !slices.Equal(s.Routes, routes) || s.Endpoint != settings().Endpoint {
		t.Errorf("the settings are %+v", s)
	}
	if tt, ok := c.View().Touched(v); !ok || !tt.Settings || tt.Policy || len(tt.Devices) > 0 {
		t.Errorf("touched: %+v %v", tt, ok)
	}
	var empty []netip.Prefix
	must(c, Configure{Routes: &empty}) // an empty list is not a missing one
	if s, _ = c.View().Settings(); len(s.Routes) != 0 {
		t.Errorf("the routes are %v", s.Routes)
	}
	off, on := false, true
	for _, mtu := range []uint16{1280, 9000, 0} {
		must(c, Configure{MTU: &mtu, Masquerade: &off})
		if s, _ = c.View().Settings(); s.MTU != mtu || s.Masquerade || s.Session != session {
			t.Errorf("the settings are %+v", s)
		}
	}
	must(c, Configure{Masquerade: &on})
	if got := c.View().Audit(0, 2); got[0].Detail != "mtu auto" || got[1].Detail != "masquerade on" {
		t.Errorf("audited: %+v", got)
	}
	before := c.contents()
	must(c, Configure{Session: &session}) // as it is already
	if string(before) != string(c.contents()) {
		t.Error("settings that stay the same change something")
	}
}

func TestMTUWithoutIPv6(t *testing.T) {
	c := newCluster(t, "10.77.0.0/16")
	low, lower := uint16(576), uint16(575)
	must(c, Configure{MTU: &low})
	refused(c, Configure{MTU: &lower}, ErrInvalid)
}

// Below level 2 settings are changed in the former form, and what that has not is refused.
func TestConfigureBelowItsLevel(t *testing.T) {
	c := emptyCluster(t)
	s := settings()
	s.MTU = 1400
	refused(c, Init{s, "{}"}, ErrLevel)
	must(c, Init{settings(), "{}"})
	session, mtu := time.Hour, uint16(1400)
	must(c, Configure{Session: &session}.For(c.View()))
	if s, _ := c.View().Settings(); s.Session != session {
		t.Errorf("the session is %v long", s.Session)
	}
	if b := (Configure{MTU: &mtu}).For(c.View()); c.View().Takes(b) {
		t.Errorf("%+v is taken", b)
	}
	must(c, Upgrade{Level: newestLevel})
	must(c, Configure{MTU: &mtu}.For(c.View()))
}
