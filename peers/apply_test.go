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
	before := c.contents()
	must(c, Configure{Session: &session}) // as it is already
	if string(before) != string(c.contents()) {
		t.Error("settings that stay the same change something")
	}
}

func TestUserAdd(t *testing.T) {
	c := newCluster(t)
	inv := invitation("alice")
	r := must(c, UserAdd{id("alice"), "Alice", &inv})
	if r.User.Name != "Alice" || r.Invitation.User != r.User.ID || c.View().InvitationByHash(inv.Hash) != r.Invitation {
		t.Errorf("added %+v %+v", r.User, r.Invitation)
	}
	refused(c, UserAdd{id("bob"), "aLICE", nil}, ErrExists)
	refused(c, UserAdd{id("alice"), "bob", nil}, ErrExists)
	refused(c, UserAdd{ID{}, "bob", nil}, ErrInvalid)
	refused(c, UserAdd{id("bob"), "bob smith", nil}, ErrInvalid)
	refused(c, UserAdd{id("bob"), "bob", &inv}, ErrExists)
	late := invitation("bob")
	late.Expires = c.now
	refused(c, UserAdd{id("bob"), "bob", &late}, ErrInvalid)
	late = invitation("bob")
	late.Hash = [32]byte{}
	refused(c, UserAdd{id("bob"), "bob", &late}, ErrInvalid)
	if users, _, _ := c.View().Counts(); users != 1 {
		t.Errorf("%d users", users)
	}
}

func TestUserEnable(t *testing.T) {
	c := newCluster(t)
	u, d := enrol(c, "alice", "laptop")
	c.now = c.now.Add(time.Minute)
	must(c, Login{d.ID, c.step(0)})
	v := c.View()
	if r := must(c, UserEnable{u.ID, false}); r.Count != 1 || !r.User.Disabled {
		t.Errorf("disabling: %+v", r)
	}
	if c.View().Session(d.ID) != nil {
		t.Error("a disabled user's session lives")
	}
	if tt, _ := c.View().Touched(v); !slices.Equal(tt.Devices, []ID{d.ID}) {
		t.Errorf("touched %v", tt.Devices)
	}
	refused(c, Login{d.ID, c.step(1)}, ErrDisabled)
	must(c, InvitationAdd{u.ID, invitation("second")})
	refused(c, EnrolBegin{invitation("second").ID, hash("browser"), Sealed("secret")}, ErrDisabled)
	v = c.View()
	must(c, UserEnable{u.ID, false}) // already
	if c.View().Audit(v.Index(), 10) != nil {
		t.Error("an unchanged user is audited")
	}
	must(c, UserEnable{u.ID, true})
	must(c, Login{d.ID, c.step(1)})
	refused(c, UserEnable{id("nobody"), true}, ErrNotFound)
}

func TestUserRemove(t *testing.T) {
	c := newCluster(t)
	u, d := enrol(c, "alice", "laptop")
	c.now = c.now.Add(time.Minute)
	must(c, Login{d.ID, c.step(0)})
	must(c, DeviceAdd{u.ID, device("alice", "phone")})
	must(c, InvitationAdd{u.ID, invitation("second")})
	if r := must(c, UserRemove{u.ID}); r.Count != 2 {
		t.Errorf("%d devices went with her", r.Count)
	}
	v := c.View()
	if v.User(u.ID) != nil || v.UserByName("alice") != nil || v.Device(d.ID) != nil || v.Session(d.ID) != nil ||
		v.InvitationByHash(invitation("second").Hash) != nil || v.DeviceByAddr(d.Addrs[1]) != nil {
		t.Error("something of her is left")
	}
	if users, devices, sessions := v.Counts(); users+devices+sessions != 0 {
		t.Errorf("counts are %d %d %d", users, devices, sessions)
	}
	if !v.Retired(d.PublicKey) || !v.Retired(key("alice/phone")) {
		t.Error("a key left no tombstone")
	}
	refused(c, UserRemove{u.ID}, ErrNotFound)
	refused(c, UserAdd{ID{}, "alice", nil}, ErrInvalid)
	must(c, UserAdd{id("another alice"), "alice", nil})
	refused(c, DeviceAdd{id("another alice"), device("alice", "laptop")}, ErrKeyTaken)
}

func TestTOTPReset(t *testing.T) {
	c := newCluster(t)
	u, d := enrol(c, "alice", "laptop")
	c.now = c.now.Add(time.Minute)
	must(c, Login{d.ID, c.step(0)})
	must(c, Failure{u.ID})
	before := c.View().User(u.ID)
	r := must(c, TOTPReset{u.ID})
	if len(r.User.TOTP) != 0 || r.Count != 1 || c.View().Session(d.ID) != nil {
		t.Errorf("reset: %+v", r)
	}
	if r.User.LastStep != before.LastStep || r.User.Failures != 1 {
		t.Error("a reset forgets the last step or the failures")
	}
	refused(c, Login{d.ID, c.step(1)}, ErrNotEnrolled)
	must(c, InvitationAdd{u.ID, invitation("second")})
	must(c, EnrolBegin{invitation("second").ID, hash("browser"), Sealed("new secret")})
	// The step that was spent before the reset stays spent.
	refused(c, EnrolFinish{invitation("second").ID, hash("browser"), before.LastStep, device("alice", "phone")}, ErrCodeUsed)
	r = must(c, EnrolFinish{invitation("second").ID, hash("browser"), before.LastStep + 1, device("alice", "phone")})
	if string(r.User.TOTP) != "new secret" || r.User.Failures != 1 {
		t.Errorf("enrolled again: %+v", r.User)
	}
	// A secret that is pending at a reset is gone.
	must(c, InvitationAdd{u.ID, invitation("third")})
	must(c, TOTPReset{u.ID})
	must(c, EnrolBegin{invitation("third").ID, hash("browser"), Sealed("seen by someone")})
	must(c, TOTPReset{u.ID})
	refused(c, EnrolFinish{invitation("third").ID, hash("browser"), before.LastStep + 2, device("alice", "tablet")}, ErrNotEnrolled)
	refused(c, TOTPReset{id("nobody")}, ErrNotFound)
}

func TestDeviceAdd(t *testing.T) {
	c := newCluster(t)
	u := must(c, UserAdd{id("alice"), "alice", nil}).User
	n := device("alice", "server")
	n.Tags = []string{"tag:web", "tag:db", "tag:web"}
	d := must(c, DeviceAdd{u.ID, n}).Device
	if !slices.Equal(d.Tags, []string{"tag:db", "tag:web"}) {
		t.Errorf("the tags are %v", d.Tags)
	}
	change := func(f func(*NewDevice)) DeviceAdd {
		n := device("alice", "phone")
		f(&n)
		return DeviceAdd{u.ID, n}
	}
	for name, tt := range map[string]struct {
		cmd  DeviceAdd
		want error
	}{
		"no user":       {DeviceAdd{id("nobody"), device("nobody", "phone")}, ErrNotFound},
		"no id":         {change(func(n *NewDevice) { n.ID = ID{} }), ErrInvalid},
		"same id":       {change(func(n *NewDevice) { n.ID = d.ID }), ErrExists},
		"same name":     {change(func(n *NewDevice) { n.Name = "SERVER" }), ErrExists},
		"bad name":      {change(func(n *NewDevice) { n.Name = "a/b" }), ErrInvalid},
		"same key":      {change(func(n *NewDevice) { n.PublicKey = d.PublicKey }), ErrKeyTaken},
		"gateway's key": {change(func(n *NewDevice) { n.PublicKey = key("gateway") }), ErrKeyTaken},
		"no key":        {change(func(n *NewDevice) { n.PublicKey = Key{} }), ErrInvalid},
		"low-order key": {change(func(n *NewDevice) { n.PublicKey = lowOrder[5] }), ErrInvalid},
		"no psk":        {change(func(n *NewDevice) { n.PresharedKey = nil }), ErrInvalid},
		"large psk":     {change(func(n *NewDevice) { n.PresharedKey = make(Sealed, maxSealed+1) }), ErrLimit},
		"bad tag":       {change(func(n *NewDevice) { n.Tags = []string{"web"} }), ErrInvalid},
		"many tags":     {change(func(n *NewDevice) { n.Tags = slices.Repeat([]string{"tag:a"}, maxTags+1) }), ErrLimit},
	} {
		t.Run(name, func(t *testing.T) { refused(c, tt.cmd, tt.want) })
	}
	for i := range maxDevices - 1 {
		must(c, DeviceAdd{u.ID, device("alice", number("device", i))})
	}
	r := refused(c, DeviceAdd{u.ID, device("alice", "one-more")}, ErrLimit)
	if !strings.Contains(r.Err.Error(), "100") {
		t.Errorf("the error has no number: %v", r.Err)
	}
}

func TestDeviceEnable(t *testing.T) {
	c := newCluster(t)
	_, d := enrol(c, "alice", "laptop")
	c.now = c.now.Add(time.Minute)
	must(c, Login{d.ID, c.step(0)})
	if r := must(c, DeviceEnable{d.ID, false}); !r.Device.Disabled || r.Count != 1 || c.View().Session(d.ID) != nil {
		t.Errorf("disabling: %+v", r)
	}
	refused(c, Login{d.ID, c.step(1)}, ErrDisabled)
	if r := must(c, DeviceEnable{d.ID, true}); r.Device.Disabled {
		t.Error("it is still disabled")
	}
	must(c, Login{d.ID, c.step(1)})
	refused(c, DeviceEnable{id("nothing"), true}, ErrNotFound)
}

func TestDeviceRemove(t *testing.T) {
	c := newCluster(t)
	u, d := enrol(c, "alice", "laptop")
	c.now = c.now.Add(time.Minute)
	must(c, Login{d.ID, c.step(0)})
	v := c.View()
	must(c, DeviceRemove{d.ID})
	if tt, _ := c.View().Touched(v); !slices.Equal(tt.Devices, []ID{d.ID}) {
		t.Errorf("touched %v", tt.Devices)
	}
	if v := c.View(); v.Device(d.ID) != nil || v.Session(d.ID) != nil || !v.Retired(d.PublicKey) {
		t.Error("something is left, or no tombstone")
	}
	if v.Device(d.ID) != d || v.Session(d.ID) == nil {
		t.Error("the view of before has changed")
	}
	refused(c, DeviceRemove{d.ID}, ErrNotFound)
	refused(c, Login{d.ID, c.step(1)}, ErrNotFound)
	refused(c, DeviceAdd{u.ID, device("alice", "laptop")}, ErrKeyTaken)
}

func TestDeviceRotate(t *testing.T) {
	c := newCluster(t)
	_, d := enrol(c, "alice", "laptop")
	_, other := enrol(c, "bob", "laptop")
	c.now = c.now.Add(time.Minute)
	must(c, Login{d.ID, c.step(0)})
	routes := []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}
	must(c, Configure{Routes: &routes})
	refused(c, DeviceRotate{d.ID, d.PublicKey, Sealed("psk")}, ErrKeyTaken)
	refused(c, DeviceRotate{d.ID, other.PublicKey, Sealed("psk")}, ErrKeyTaken)
	refused(c, DeviceRotate{d.ID, key("new"), nil}, ErrInvalid)
	refused(c, DeviceRotate{d.ID, Key{}, Sealed("psk")}, ErrInvalid)
	refused(c, DeviceRotate{id("nothing"), key("new"), Sealed("psk")}, ErrNotFound)
	r := must(c, DeviceRotate{d.ID, key("new"), Sealed("psk")})
	if r.Device.Name != d.Name || !slices.Equal(r.Device.Addrs, d.Addrs) || r.Count != 1 || !slices.Equal(r.Device.Routes, routes) {
		t.Errorf("rotated: %+v", r.Device)
	}
	v := c.View()
	if v.DeviceByKey(key("new")) != r.Device || v.DeviceByKey(d.PublicKey) != nil || !v.Retired(d.PublicKey) || v.Session(d.ID) != nil {
		t.Error("the old key, or its session, is still there")
	}
	refused(c, DeviceRotate{d.ID, d.PublicKey, Sealed("psk")}, ErrKeyTaken) // the tombstone
}

func TestPolicyApply(t *testing.T) {
	c := newCluster(t)
	v := c.View()
	refused(c, PolicyApply{"{ }", 0, ""}, ErrConflict)
	refused(c, PolicyApply{"{ }", 2, ""}, ErrConflict)
	refused(c, PolicyApply{strings.Repeat(" ", maxPolicy+1), 1, ""}, ErrLimit)
	refused(c, PolicyApply{"{}", 1, "two\nlines"}, ErrInvalid)
	r := must(c, PolicyApply{"// second\n{}", 1, "because"})
	if r.Policy.Version != 2 || c.View().Policy() != r.Policy || r.Policy.Note != "because" {
		t.Errorf("applied %+v", r.Policy)
	}
	if p := c.View().PolicyVersion(1); p == nil || p.Text != "{}" {
		t.Errorf("version 1 is %+v", p)
	}
	var versions []uint64
	for p := range c.View().Policies() {
		versions = append(versions, p.Version)
	}
	if !slices.Equal(versions, []uint64{2, 1}) {
		t.Errorf("versions are %v", versions)
	}
	if tt, ok := c.View().Touched(v); !ok || !tt.Policy || tt.Settings {
		t.Errorf("touched %+v %v", tt, ok)
	}
}

func TestNoteAndActor(t *testing.T) {
	c := newCluster(t)
	must(c, Note{"plane.repaired", "table inet vpnd", "flushed by hand"})
	e := c.View().Audit(0, 1)[0]
	if e.Action != "plane.repaired" || e.Actor != "test" || e.Index != c.index || !e.At.Equal(c.now) {
		t.Errorf("the entry is %+v", e)
	}
	refused(c, Note{"", "x", "y"}, ErrInvalid)
	refused(c, Note{"x", "\x1b[2J", "y"}, ErrInvalid)
	refused(c, Note{"x", "y", "right \u202e to left"}, ErrInvalid)
	refused(c, Note{"x", "y", strings.Repeat("z", maxNote+1)}, ErrLimit)
	if r := c.command(Command{At: c.now, Actor: "a\nb", Body: Expire{}}); r.Err == nil {
		t.Error("an actor of two lines is accepted")
	}
}
