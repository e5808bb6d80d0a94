package peers

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"
)

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
	most := device("alice", "most")
	most.PresharedKey = make(Sealed, maxSealed)
	must(c, DeviceAdd{u.ID, most})
	for i := range maxDevices - 2 {
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
