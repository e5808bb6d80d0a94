package peers

import (
	"iter"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// Device is one WireGuard key of a user.
type Device struct {
	ID           ID
	User         ID
	Name         string // unique among the user's devices without regard to case
	Tags         []string
	PublicKey    Key
	PresharedKey Sealed
	Addrs        []netip.Addr // IPv4, IPv6
	Created      time.Time
	Disabled     bool
	Routes       []netip.Prefix // the Settings.Routes that its config was made with
}

type wireDevice struct {
	ID           ID             `cbor:"1,keyasint"`
	User         ID             `cbor:"2,keyasint"`
	Name         string         `cbor:"3,keyasint"`
	Tags         []string       `cbor:"4,keyasint,omitempty"`
	PublicKey    Key            `cbor:"5,keyasint"`
	PresharedKey Sealed         `cbor:"6,keyasint,omitempty"`
	Addrs        []netip.Addr   `cbor:"7,keyasint"`
	Created      stamp          `cbor:"8,keyasint"`
	Disabled     bool           `cbor:"9,keyasint,omitempty"`
	Routes       []netip.Prefix `cbor:"10,keyasint,omitempty"`
}

// MarshalCBOR gives the canonical encoding.
func (d Device) MarshalCBOR() ([]byte, error) {
	return encMode.Marshal(wireDevice{d.ID, d.User, d.Name, d.Tags, d.PublicKey, d.PresharedKey, d.Addrs,
		stampOf(d.Created), d.Disabled, d.Routes})
}

// UnmarshalCBOR reads what MarshalCBOR wrote.
func (d *Device) UnmarshalCBOR(b []byte) error {
	w, err := unwire[wireDevice](b)
	*d = Device{w.ID, w.User, w.Name, w.Tags, w.PublicKey, w.PresharedKey, w.Addrs, w.Created.time(), w.Disabled, w.Routes}
	return err
}

// NewDevice is a device before State has given it addresses.
type NewDevice struct {
	ID           ID       `cbor:"1,keyasint,omitzero"`
	Name         string   `cbor:"2,keyasint,omitempty"`
	Tags         []string `cbor:"3,keyasint,omitempty"`
	PublicKey    Key      `cbor:"4,keyasint,omitzero"`
	PresharedKey Sealed   `cbor:"5,keyasint,omitempty"`
}

// DeviceAdd adds a device for an administrator.
type DeviceAdd struct {
	User   ID        `cbor:"1,keyasint,omitzero"`
	Device NewDevice `cbor:"2,keyasint"`
}

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

// DeviceEnable enables or disables. Disabling ends the device's session.
type DeviceEnable struct {
	Device  ID   `cbor:"1,keyasint,omitzero"`
	Enabled bool `cbor:"2,keyasint,omitempty"`
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

// DeviceRemove removes a device and leaves a tombstone of its key.
type DeviceRemove struct {
	Device ID `cbor:"1,keyasint,omitzero"`
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

// DeviceRotate gives a device new keys; it keeps name and addresses, loses its session,
// and the old public key becomes a tombstone.
type DeviceRotate struct {
	Device       ID     `cbor:"1,keyasint,omitzero"`
	PublicKey    Key    `cbor:"2,keyasint,omitzero"`
	PresharedKey Sealed `cbor:"3,keyasint,omitempty"`
}

func (c DeviceRotate) apply(t *tx) (Result, error) {
	d, u, err := t.device(c.Device)
	if err != nil {
		return Result{}, err
	}
	if err := t.checkNewKey(c.PublicKey); err != nil {
		return Result{}, err
	}
	if err := checkSealed("preshared_key", c.PresharedKey); err != nil {
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
		return nil, refuse("device_no_id", shorten(n.Name))
	}
	if err := CheckDeviceName(n.Name); err != nil {
		return nil, err
	}
	tags, err := checkTags(n.Tags)
	if err != nil {
		return nil, err
	}
	if err := checkSealed("preshared_key", n.PresharedKey); err != nil {
		return nil, err
	}
	if get[Device](t, tableDevices, byID, n.ID[:]) != nil {
		return nil, refuse("device_id_exists", n.ID)
	}
	if d := deviceByName(t, u.ID, n.Name); d != nil {
		return nil, refuse("device_exists", u.Name, d.Name)
	}
	if err := t.checkNewKey(n.PublicKey); err != nil {
		return nil, err
	}
	devices := 0
	for range devicesOf(t, u.ID) {
		devices++
	}
	if devices >= maxDevices {
		return nil, refuse("devices_limit", u.Name, devices)
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

// device returns the device with this id and its owner, or ErrNotFound.
func (t *tx) device(id ID) (*Device, *User, error) {
	d := get[Device](t, tableDevices, byID, id[:])
	if d == nil {
		return nil, nil, refuse("device_not_found", id)
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

// checkTags gives the tags in order.
func checkTags(tags []string) ([]string, error) {
	if len(tags) > maxTags {
		return nil, refuse("tags_limit", len(tags), maxTags)
	}
	if len(tags) == 0 {
		return nil, nil
	}
	for _, tag := range tags {
		if err := CheckTag(tag); err != nil {
			return nil, err
		}
	}
	return slices.Compact(slices.Sorted(slices.Values(tags))), nil
}

// Device returns the device with this id.
func (v *View) Device(id ID) *Device { return get[Device](v, tableDevices, byID, id[:]) }

// DeviceByName returns the user's device of this name, without regard to case.
func (v *View) DeviceByName(user ID, name string) *Device { return deviceByName(v, user, name) }

// DeviceByKey returns the device with this public key.
func (v *View) DeviceByKey(k Key) *Device { return get[Device](v, tableDevices, byKey, k[:]) }

// DeviceByAddr returns the device that has this tunnel address.
func (v *View) DeviceByAddr(a netip.Addr) *Device {
	if v.m.Settings == nil {
		return nil
	}
	a = a.Unmap()
	host, ok := v.m.Settings.host(a)
	if !ok {
		return nil
	}
	first, ok := addrAt(v.m.Settings.Network[0], host)
	if !ok {
		return nil
	}
	d := get[Device](v, tableDevices, byAddr, addrKey(first))
	if d == nil || !slices.Contains(d.Addrs, a) {
		return nil
	}
	return d
}

// Devices yields all devices by id.
func (v *View) Devices() iter.Seq[*Device] { return scan[Device](v, tableDevices, byID, nil) }

// DevicesOf yields a user's devices by name.
func (v *View) DevicesOf(user ID) iter.Seq[*Device] { return devicesOf(v, user) }

// Retired says whether k was a device's key and must not be used again.
func (v *View) Retired(k Key) bool { return get[retired](v, tableRetired, byID, k[:]) != nil }

func deviceByName(r reader, user ID, name string) *Device {
	return get[Device](r, tableDevices, byName, deviceNameKey(user, name))
}

func devicesOf(r reader, user ID) iter.Seq[*Device] {
	return scan[Device](r, tableDevices, byName, user[:])
}
