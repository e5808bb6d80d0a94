package api

import (
	"context"

	"vpnd/internal/control"
	"vpnd/internal/dataplane"
	"vpnd/peers"
	vpnv1 "vpnd/proto/vpn/v1"
)

// deviceServer decodes, calls and encodes for DeviceService.
type deviceServer struct {
	vpnv1.UnimplementedDeviceServiceServer
	*Edge
}

// statsAtOnce is up to how many peers are asked for by name; more cost less by asking
// for all.
const statsAtOnce = 100

// describe encodes devices, with the tunnel's readings where those can be had.
func (e *Edge) describe(ctx context.Context, v *peers.View, list []*peers.Device, live bool) []*vpnv1.Device {
	set, _ := v.Settings()
	now := e.s.Time(v)
	var st dataplane.Stats
	if live && len(list) > 0 {
		var keys []dataplane.Key
		if len(list) <= statsAtOnce {
			for _, d := range list {
				keys = append(keys, dataplane.Key(d.PublicKey))
			}
		}
		var err error
		if st, err = e.s.Stats(ctx, keys...); err != nil {
			e.log.Warn("the tunnel's counters could not be read", "what", "plane.read", "why", err)
		}
	}
	out := make([]*vpnv1.Device, len(list))
	for i, d := range list {
		out[i] = protoDevice(v, d, set, st, now)
	}
	return out
}

func (g deviceServer) one(ctx context.Context, d *peers.Device) *vpnv1.Device {
	return g.describe(ctx, g.s.View(), []*peers.Device{d}, true)[0]
}

// AddDevice adds a device whose key pair was made by the caller.
func (g deviceServer) AddDevice(ctx context.Context, r *vpnv1.AddDeviceRequest) (*vpnv1.AddDeviceResponse, error) {
	d, err := g.s.AddDevice(ctx, r.GetUser(), r.GetName(), r.GetPublicKey(), r.GetTags())
	if err != nil {
		return nil, err
	}
	// A new device has no readings yet: none are asked for.
	dev := g.describe(ctx, g.s.View(), []*peers.Device{d.Device}, false)[0]
	return &vpnv1.AddDeviceResponse{Device: dev, Config: d.Config}, nil
}

// ListDevices returns the devices of a user, or all, by name.
func (g deviceServer) ListDevices(ctx context.Context, r *vpnv1.ListDevicesRequest) (*vpnv1.ListDevicesResponse, error) {
	v := g.s.View()
	set, _ := v.Settings()
	var list []*peers.Device
	of := func(u *peers.User) {
		for d := range v.DevicesOf(u.ID) {
			if !r.GetOutdated() || control.Outdated(d, set) {
				list = append(list, d)
			}
		}
	}
	if name := r.GetUser(); name != "" {
		u, err := control.UserNamed(v, name)
		if err != nil {
			return nil, err
		}
		of(u)
	} else {
		for u := range v.Users() {
			of(u)
		}
	}
	return &vpnv1.ListDevicesResponse{Devices: g.describe(ctx, v, list, true)}, nil
}

// GetDevice returns one device.
func (g deviceServer) GetDevice(ctx context.Context, r *vpnv1.GetDeviceRequest) (*vpnv1.GetDeviceResponse, error) {
	d, _, err := control.DeviceNamed(g.s.View(), r.GetName())
	if err != nil {
		return nil, err
	}
	return &vpnv1.GetDeviceResponse{Device: g.one(ctx, d)}, nil
}

// SetDeviceEnabled enables or disables a device.
func (g deviceServer) SetDeviceEnabled(ctx context.Context, r *vpnv1.SetDeviceEnabledRequest) (*vpnv1.SetDeviceEnabledResponse, error) {
	d, closed, err := g.s.SetDeviceEnabled(ctx, r.GetName(), r.GetEnabled())
	if err != nil {
		return nil, err
	}
	return &vpnv1.SetDeviceEnabledResponse{Device: g.one(ctx, d), Closed: protoClosed(closed)}, nil
}

// RemoveDevice removes a device. Its key is refused ever after.
func (g deviceServer) RemoveDevice(ctx context.Context, r *vpnv1.RemoveDeviceRequest) (*vpnv1.RemoveDeviceResponse, error) {
	closed, err := g.s.RemoveDevice(ctx, r.GetName())
	if err != nil {
		return nil, err
	}
	return &vpnv1.RemoveDeviceResponse{Closed: protoClosed(closed)}, nil
}

// RotateDevice gives a device a new key pair, made by the caller.
func (g deviceServer) RotateDevice(ctx context.Context, r *vpnv1.RotateDeviceRequest) (*vpnv1.RotateDeviceResponse, error) {
	d, closed, err := g.s.RotateDevice(ctx, r.GetName(), r.GetPublicKey())
	if err != nil {
		return nil, err
	}
	return &vpnv1.RotateDeviceResponse{Device: g.one(ctx, d.Device), Config: d.Config, Closed: protoClosed(closed)}, nil
}
