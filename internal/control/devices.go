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
		return nil, nil, refuse(CodeInvalid, "A device is named USER/DEVICE, as alice/laptop; %q is not.", name)
	}
	u, err := UserNamed(v, user)
	if err != nil {
		return nil, nil, err
	}
	d := v.DeviceByName(u.ID, device)
	if d == nil {
		return nil, nil, notFound("device", u.Name+"/"+device, "vpnctl device ls")
	}
	return d, u, nil
}

// DeviceConfig is a device and what its owner needs to use it.
type DeviceConfig struct {
	Device *peers.Device
	User   *peers.User
	Config string // without its PrivateKey line; secret
}

// AddDevice adds a device whose key pair was made by the caller, and answers when the
// gateway knows it.
func (s *Service) AddDevice(ctx context.Context, user, name, publicKey string, tags []string) (DeviceConfig, error) {
	u, err := UserNamed(s.View(), user)
	if err != nil {
		return DeviceConfig{}, err
	}
	key, err := peers.ParseKey(publicKey)
	if err != nil {
		return DeviceConfig{}, refused(err)
	}
	if err := peers.CheckDeviceName(name); err != nil {
		return DeviceConfig{}, refused(err)
	}
	tags = slices.Clone(tags)
	slices.Sort(tags)
	dev, err := s.newDevice(name, slices.Compact(tags), key)
	if err != nil {
		return DeviceConfig{}, err
	}
	index, res, err := s.propose(ctx, peers.DeviceAdd{User: u.ID, Device: dev})
	if err != nil {
		return DeviceConfig{}, err
	}
	config, err := s.clientConfig(res.Device)
	if err != nil {
		return DeviceConfig{}, err
	}
	// The device is there whatever the plane says; its config must not be lost.
	if err := s.opened(ctx, index, "The device was added"); err != nil {
		s.logf("add the device %s/%s to the data plane: %v", u.Name, name, err)
	}
	return DeviceConfig{Device: res.Device, User: u, Config: config}, nil
}

// SetDeviceEnabled enables or disables a device.
func (s *Service) SetDeviceEnabled(ctx context.Context, name string, enabled bool) (*peers.Device, []Closed, error) {
	d, _, err := DeviceNamed(s.View(), name)
	if err != nil {
		return nil, nil, err
	}
	index, _, err := s.propose(ctx, peers.DeviceEnable{Device: d.ID, Enabled: enabled})
	if err != nil {
		return nil, nil, err
	}
	closed := s.closed(ctx, index)
	if d, _, err = DeviceNamed(s.View(), name); err != nil {
		return nil, nil, err
	}
	return d, closed, nil
}

// RemoveDevice removes a device. Its key is refused ever after.
func (s *Service) RemoveDevice(ctx context.Context, name string) ([]Closed, error) {
	d, _, err := DeviceNamed(s.View(), name)
	if err != nil {
		return nil, err
	}
	index, _, err := s.propose(ctx, peers.DeviceRemove{Device: d.ID})
	if err != nil {
		return nil, err
	}
	return s.closed(ctx, index), nil
}

// RotateDevice gives a device a new key pair, made by the caller, and a new preshared key.
func (s *Service) RotateDevice(ctx context.Context, name, publicKey string) (DeviceConfig, []Closed, error) {
	d, u, err := DeviceNamed(s.View(), name)
	if err != nil {
		return DeviceConfig{}, nil, err
	}
	key, err := peers.ParseKey(publicKey)
	if err != nil {
		return DeviceConfig{}, nil, refused(err)
	}
	psk, err := s.newPSK(d.ID)
	if err != nil {
		return DeviceConfig{}, nil, err
	}
	index, res, err := s.propose(ctx, peers.DeviceRotate{Device: d.ID, PublicKey: key, PresharedKey: psk})
	if err != nil {
		return DeviceConfig{}, nil, err
	}
	config, err := s.clientConfig(res.Device)
	if err != nil {
		return DeviceConfig{}, nil, err
	}
	return DeviceConfig{Device: res.Device, User: u, Config: config}, s.closed(ctx, index), nil
}

// Outdated says whether a device's config lacks a route of today's settings.
func Outdated(d *peers.Device, set peers.Settings) bool {
	return slices.ContainsFunc(set.Routes, func(r netip.Prefix) bool { return !slices.Contains(d.Routes, r) })
}

// EndSessions ends the sessions of a device ("user/device"), of a user, or (with both
// empty) all, and says how many those were.
func (s *Service) EndSessions(ctx context.Context, device, user string) (int, []Closed, error) {
	var end peers.SessionEnd
	v := s.View()
	switch {
	case device != "":
		d, _, err := DeviceNamed(v, device)
		if err != nil {
			return 0, nil, err
		}
		end.Device = d.ID
	case user != "":
		u, err := UserNamed(v, user)
		if err != nil {
			return 0, nil, err
		}
		end.User = u.ID
	}
	index, res, err := s.propose(ctx, end)
	if err != nil {
		return 0, nil, err
	}
	return res.Count, s.closed(ctx, index), nil
}
