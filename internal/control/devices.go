package control

import (
	"context"
	"net/netip"
	"slices"
	"strings"

	"vpnd/peers"
)

// DeviceNamed finds a device by "user/device".
func DeviceNamed(v *peers.View, name string) (*peers.Device, *peers.User, error) {
	user, device, ok := strings.Cut(name, "/")
	if !ok || user == "" || device == "" {
		return nil, nil, Refuse("device_form", name)
	}
	u, err := UserNamed(v, user)
	if err != nil {
		return nil, nil, err
	}
	d := v.DeviceByName(u.ID, device)
	if d == nil {
		return nil, nil, Refuse("no_device", u.Name+"/"+device)
	}
	return d, u, nil
}

// DeviceConfig is a device and what its owner needs to use it.
type DeviceConfig struct {
	Device *peers.Device
	User   *peers.User
	Config string // without its PrivateKey line; secret
}

// AddDevice asks for a new device.
type AddDevice struct {
	User, Name, PublicKey string
	Tags                  []string
}

// AddDevice adds a device whose key pair was made by the caller, and answers when the
// gateway knows it.
func (s *Service) AddDevice(ctx context.Context, user, name, publicKey string, tags []string) (DeviceConfig, error) {
	a, err := s.ask(ctx, AddDevice{User: user, Name: name, PublicKey: publicKey, Tags: tags})
	if err != nil {
		return DeviceConfig{}, err
	}
	c, err := s.configAfter(a, user+"/"+name)
	if err != nil {
		return DeviceConfig{}, err
	}
	// The device is there whatever the plane says; its config must not be lost.
	if err := s.opened(ctx, a.Index, "device_not_yet"); err != nil {
		s.log.Warn("a device was added, and the data plane has yet to take it", "what", "device.add", "user", c.User.Name, "device", name, "why", err)
	}
	return c, nil
}

func (q AddDevice) decide(ctx context.Context, d *decision) (Answer, error) {
	u, err := UserNamed(d.View(), q.User)
	if err != nil {
		return Answer{}, err
	}
	key, err := peers.ParseKey(q.PublicKey)
	if err != nil {
		return Answer{}, refused(err)
	}
	if err := peers.CheckDeviceName(q.Name); err != nil {
		return Answer{}, refused(err)
	}
	tags := slices.Clone(q.Tags)
	slices.Sort(tags)
	dev, err := d.newDevice(q.Name, slices.Compact(tags), key)
	if err != nil {
		return Answer{}, err
	}
	index, res, err := d.propose(ctx, peers.DeviceAdd{User: u.ID, Device: dev})
	if err != nil {
		return Answer{}, err
	}
	added, err := deviceOf(res, key)
	if err != nil {
		return Answer{}, err
	}
	return Answer{Index: index, Device: added.ID}, nil
}

// deviceAfter is a device as it is after what was asked for.
func (s *Service) deviceAfter(a Answer, name string) (*peers.Device, error) {
	if d := s.View().Device(a.Device); d != nil {
		return d, nil
	}
	return nil, Refuse("no_device", name)
}

// configAfter is a device with its config after what was asked for.
func (s *Service) configAfter(a Answer, name string) (DeviceConfig, error) {
	d, err := s.deviceAfter(a, name)
	if err != nil {
		return DeviceConfig{}, err
	}
	u := s.View().User(d.User)
	if u == nil {
		return DeviceConfig{}, Refuse("no_device", name)
	}
	config, err := s.clientConfig(d)
	return DeviceConfig{Device: d, User: u, Config: config}, err
}

// EnableDevice asks to enable or to disable a device.
type EnableDevice struct {
	Name    string // USER/DEVICE
	Enabled bool
}

// SetDeviceEnabled enables or disables a device.
func (s *Service) SetDeviceEnabled(ctx context.Context, name string, enabled bool) (*peers.Device, []Closed, error) {
	a, err := s.ask(ctx, EnableDevice{Name: name, Enabled: enabled})
	if err != nil {
		return nil, nil, err
	}
	closed := s.closed(ctx, a.Index)
	d, err := s.deviceAfter(a, name)
	if err != nil {
		return nil, nil, err
	}
	return d, closed, nil
}

func (q EnableDevice) decide(ctx context.Context, d *decision) (Answer, error) {
	dev, _, err := DeviceNamed(d.View(), q.Name)
	if err != nil {
		return Answer{}, err
	}
	index, _, err := d.propose(ctx, peers.DeviceEnable{Device: dev.ID, Enabled: q.Enabled})
	return Answer{Index: index, Device: dev.ID}, err
}

// RemoveDevice asks to remove a device.
type RemoveDevice struct{ Name string }

// RemoveDevice removes a device. Its key is refused ever after.
func (s *Service) RemoveDevice(ctx context.Context, name string) ([]Closed, error) {
	a, err := s.ask(ctx, RemoveDevice{Name: name})
	if err != nil {
		return nil, err
	}
	return s.closed(ctx, a.Index), nil
}

func (q RemoveDevice) decide(ctx context.Context, d *decision) (Answer, error) {
	if first, ok := d.before(); ok {
		return told(first)
	}
	dev, _, err := DeviceNamed(d.View(), q.Name)
	if err != nil {
		return Answer{}, err
	}
	index, _, err := d.propose(ctx, peers.DeviceRemove{Device: dev.ID})
	return Answer{Index: index}, err
}

// RotateDevice asks to give a device a new key pair.
type RotateDevice struct{ Name, PublicKey string }

// RotateDevice gives a device a new key pair, made by the caller, and a new preshared key.
func (s *Service) RotateDevice(ctx context.Context, name, publicKey string) (DeviceConfig, []Closed, error) {
	a, err := s.ask(ctx, RotateDevice{Name: name, PublicKey: publicKey})
	if err != nil {
		return DeviceConfig{}, nil, err
	}
	c, err := s.configAfter(a, name)
	if err != nil {
		return DeviceConfig{}, nil, err
	}
	return c, s.closed(ctx, a.Index), nil
}

func (q RotateDevice) decide(ctx context.Context, d *decision) (Answer, error) {
	dev, _, err := DeviceNamed(d.View(), q.Name)
	if err != nil {
		return Answer{}, err
	}
	key, err := peers.ParseKey(q.PublicKey)
	if err != nil {
		return Answer{}, refused(err)
	}
	psk, err := d.newPSK(dev.ID)
	if err != nil {
		return Answer{}, err
	}
	index, res, err := d.propose(ctx, peers.DeviceRotate{Device: dev.ID, PublicKey: key, PresharedKey: psk})
	if err == nil {
		dev, err = deviceOf(res, key)
	}
	if err != nil {
		return Answer{}, err
	}
	return Answer{Index: index, Device: dev.ID}, nil
}

// Outdated says whether a device's config lacks a route of today's settings.
func Outdated(d *peers.Device, set peers.Settings) bool {
	return slices.ContainsFunc(set.Routes, func(r netip.Prefix) bool { return !slices.Contains(d.Routes, r) })
}

// EndSessions asks to end the sessions of a device (USER/DEVICE), of a user, or all.
type EndSessions struct{ Device, User string }

// EndSessions ends the sessions of a device ("user/device"), of a user, or (with both
// empty) all, and says how many those were.
func (s *Service) EndSessions(ctx context.Context, device, user string) (int, []Closed, error) {
	a, err := s.ask(ctx, EndSessions{Device: device, User: user})
	if err != nil {
		return 0, nil, err
	}
	return a.Count, s.closed(ctx, a.Index), nil
}

func (q EndSessions) decide(ctx context.Context, d *decision) (Answer, error) {
	var end peers.SessionEnd
	v := d.View()
	switch {
	case q.Device != "":
		dev, _, err := DeviceNamed(v, q.Device)
		if err != nil {
			return Answer{}, err
		}
		end.Device = dev.ID
	case q.User != "":
		u, err := UserNamed(v, q.User)
		if err != nil {
			return Answer{}, err
		}
		end.User = u.ID
	}
	index, res, err := d.propose(ctx, end)
	return Answer{Index: index, Count: res.Count}, err
}
