package peers

import (
	"net/netip"
	"strings"
)

func (c DeviceAdd) apply(t *tx) (Result, error) {
	u, err := t.user(c.User)
	if err != nil {
		return Result{}, err
	}
	add, err := t.newDevice(u, c.Device)
	if err != nil {
		return Result{}, err
	}
	d := add()
	t.audit("device.add", t.deviceName(d), described(d))
	return Result{User: u, Device: d}, nil
}

func (c DeviceEnable) apply(t *tx) (Result, error) {
	d, u, err := t.device(c.Device)
	if err != nil {
		return Result{}, err
	}
	if d.Disabled != c.Enabled {
		return Result{User: u, Device: d}, nil
	}
	d = clone(d)
	d.Disabled = !c.Enabled
	t.put(tableDevices, d)
	t.touch(d)
	n := 0
	if d.Disabled {
		if t.endSessionOf(d.ID) {
			n = 1
		}
		t.audit("device.disable", t.deviceName(d), sessions(n)+" ended")
	} else {
		t.audit("device.enable", t.deviceName(d), "")
	}
	return Result{User: u, Device: d, Count: n}, nil
}

func (c DeviceRemove) apply(t *tx) (Result, error) {
	d, u, err := t.device(c.Device)
	if err != nil {
		return Result{}, err
	}
	name := t.deviceName(d)
	t.removeDevice(d)
	t.audit("device.remove", name, "")
	return Result{User: u, Device: d}, nil
}

func (c DeviceRotate) apply(t *tx) (Result, error) {
	d, u, err := t.device(c.Device)
	if err != nil {
		return Result{}, err
	}
	if err := t.checkNewKey(c.PublicKey); err != nil {
		return Result{}, err
	}
	if err := checkSealed("the preshared key", c.PresharedKey); err != nil {
		return Result{}, err
	}
	n := 0
	if t.endSessionOf(d.ID) {
		n = 1
	}
	t.retire(d)
	d = clone(d)
	d.PublicKey, d.PresharedKey, d.Routes = c.PublicKey, c.PresharedKey, t.m.Settings.Routes
	t.put(tableDevices, d)
	t.touch(d)
	t.audit("device.rotate", t.deviceName(d), sessions(n)+" ended")
	return Result{User: u, Device: d, Count: n}, nil
}

// newDevice checks a new device of u; calling the function it returns adds it.
func (t *tx) newDevice(u *User, n NewDevice) (add func() *Device, err error) {
	if n.ID.IsZero() {
		return nil, refuse(ErrInvalid, "device %q has no id", shorten(n.Name))
	}
	if err := CheckDeviceName(n.Name); err != nil {
		return nil, err
	}
	tags, err := checkTags(n.Tags)
	if err != nil {
		return nil, err
	}
	if err := checkSealed("the preshared key", n.PresharedKey); err != nil {
		return nil, err
	}
	if get[Device](t, tableDevices, byID, n.ID[:]) != nil {
		return nil, refuse(ErrExists, "there is a device with the id %s already", n.ID)
	}
	if d := deviceByName(t, u.ID, n.Name); d != nil {
		return nil, refuse(ErrExists, "user %s has a device %s already: choose another name, or have that one removed", u.Name, d.Name)
	}
	if err := t.checkNewKey(n.PublicKey); err != nil {
		return nil, err
	}
	devices := 0
	for range devicesOf(t, u.ID) {
		devices++
	}
	if devices >= maxDevices {
		return nil, refuse(ErrLimit, "user %s has %d devices, and no more are possible: remove one that is no longer used", u.Name, devices)
	}
	host, take, err := t.takeHost()
	if err != nil {
		return nil, err
	}
	return func() *Device {
		take()
		d := &Device{
			ID: n.ID, User: u.ID, Name: n.Name, Tags: tags,
			PublicKey: n.PublicKey, PresharedKey: n.PresharedKey,
			Addrs: t.m.Settings.addrs(host), Created: t.m.Time.time(), Routes: t.m.Settings.Routes,
		}
		t.put(tableDevices, d)
		t.m.devices++
		t.touch(d)
		return d
	}, nil
}

// removeDevice takes a device away and leaves a tombstone of its key.
func (t *tx) removeDevice(d *Device) {
	t.endSessionOf(d.ID)
	t.retire(d)
	t.releaseHost(d)
	t.delete(tableDevices, d)
	t.m.devices--
	t.touch(d)
}

func (t *tx) retire(d *Device) {
	t.put(tableRetired, &retired{d.PublicKey, d.ID, d.User, t.m.Time})
}

// checkNewKey refuses a public key that cannot be used, or is or was somebody's.
func (t *tx) checkNewKey(k Key) error {
	if err := checkKey(k); err != nil {
		return err
	}
	const remedy = "make a new key pair"
	if k == t.m.Settings.PublicKey {
		return refuse(ErrKeyTaken, "this public key is the gateway's own: %s", remedy)
	}
	if get[Device](t, tableDevices, byKey, k[:]) != nil {
		return refuse(ErrKeyTaken, "this public key is a device's already: %s", remedy)
	}
	if get[retired](t, tableRetired, byID, k[:]) != nil {
		return refuse(ErrKeyTaken, "this public key was revoked and cannot come back: %s", remedy)
	}
	return nil
}

// device returns the device with this id and its owner, or ErrNotFound.
func (t *tx) device(id ID) (*Device, *User, error) {
	d := get[Device](t, tableDevices, byID, id[:])
	if d == nil {
		return nil, nil, refuse(ErrNotFound, "there is no device with the id %s: it may have been removed meanwhile", id)
	}
	u, err := t.user(d.User)
	return d, u, err
}

// deviceName writes "alice/laptop".
func (t *tx) deviceName(d *Device) string {
	u := get[User](t, tableUsers, byID, d.User[:])
	if u == nil {
		return "?/" + d.Name
	}
	return u.Name + "/" + d.Name
}

// described is what the audit log keeps of a new device.
func described(d *Device) string {
	parts := []string{"key " + d.PublicKey.String(), "addresses " + addresses(d.Addrs)}
	if len(d.Tags) > 0 {
		parts = append(parts, "tags "+strings.Join(d.Tags, ","))
	}
	return strings.Join(parts, "; ")
}

func addresses(list []netip.Addr) string {
	var s []string
	for _, a := range list {
		s = append(s, a.String())
	}
	return strings.Join(s, ",")
}

// touch lists a device for Touched.
func (t *tx) touch(d *Device) { t.touched = append(t.touched, d.ID) }

// lowOrder are the u-coordinates of small order on Curve25519 and its twist, and their
// spellings above p: with them every shared secret is zero. RFC 7748, section 6.1, asks
// for a check of the result instead, as ParseKey does; Apply does no cryptography.
var lowOrder = [...]Key{
	{},
	{0: 1},
	{0xe0, 0xeb, 0x7a, 0x7c, 0x3b, 0x41, 0xb8, 0xae, 0x16, 0x56, 0xe3, 0xfa, 0xf1, 0x9f, 0xc4, 0x6a, 0xda, 0x09, 0x8d, 0xeb, 0x9c, 0x32, 0xb1, 0xfd, 0x86, 0x62, 0x05, 0x16, 0x5f, 0x49, 0xb8, 0x00},
	{0x5f, 0x9c, 0x95, 0xbc, 0xa3, 0x50, 0x8c, 0x24, 0xb1, 0xd0, 0xb1, 0x55, 0x9c, 0x83, 0xef, 0x5b, 0x04, 0x44, 0x5c, 0xc4, 0x58, 0x1c, 0x8e, 0x86, 0xd8, 0x22, 0x4e, 0xdd, 0xd0, 0x9f, 0x11, 0x57},
	nearP(0xec), // p-1
	nearP(0xed), // p, another 0
	nearP(0xee), // p+1, another 1
}

// nearP is a number that differs from p = 2^255-19 in its lowest byte alone.
func nearP(lowest byte) (k Key) {
	for i := range k {
		k[i] = 0xff
	}
	k[0], k[31] = lowest, 0x7f
	return k
}

func checkKey(k Key) error {
	k[31] &= 0x7f // X25519 ignores the highest bit
	for _, bad := range lowOrder {
		if k == bad {
			return refuse(ErrInvalid, "this public key is a low-order point, with which nothing is secret: make a new key pair")
		}
	}
	return nil
}
