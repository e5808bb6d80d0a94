package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	vpnv1 "vpnd/proto/vpn/v1"
)

type deviceCmd struct {
	Add     deviceAddCmd     `cmd:"" help:"Add a device: make its key here and print its config."`
	Ls      deviceLsCmd      `cmd:"" help:"List a person's devices, or all." aliases:"list"`
	Show    deviceShowCmd    `cmd:"" help:"Show a device."`
	Disable deviceDisableCmd `cmd:"" help:"Sign it out and do not let it in."`
	Enable  deviceEnableCmd  `cmd:"" help:"Let it in again."`
	Rotate  deviceRotateCmd  `cmd:"" help:"Give it a new key: the old config stops working at once."`
	Rm      deviceRmCmd      `cmd:"" help:"Remove a device; its key is refused ever after." aliases:"remove"`
}

// deviceArg is the argument of the commands about one device.
type deviceArg struct {
	Device string `arg:"" help:"The device, as USER/DEVICE." placeholder:"USER/DEVICE" predictor:"device"`
}

// Validate is called by kong.
func (d *deviceArg) Validate() error {
	user, name, ok := strings.Cut(d.Device, "/")
	if !ok || user == "" || name == "" || strings.Contains(name, "/") {
		return fmt.Errorf("%q: want USER/DEVICE, as in alice/laptop", d.Device)
	}
	return nil
}

type deviceAddCmd struct {
	User string   `arg:"" help:"Whose it is." predictor:"user"`
	Name string   `arg:"" help:"Its name, as in laptop."`
	Tag  []string `help:"A tag of the policy, as in tag:server; a tagged device leaves its user." placeholder:"TAG"`
	keyFlags
}

func (c *deviceAddCmd) Run(ctx context.Context, a *app) error {
	k, err := c.prepare()
	if err != nil {
		return err
	}
	defer k.discard()
	r, err := a.api.devices().AddDevice(ctx, &vpnv1.AddDeviceRequest{User: c.User, Name: c.Name, PublicKey: k.public, Tags: c.Tag})
	if err != nil {
		return err
	}
	if r.Config, err = k.deliver(a, r.Config); err != nil {
		return fmt.Errorf("%w; the device was added: vpnctl device rotate %s gives it another config", err, r.Device.GetName())
	}
	if a.json {
		return a.printJSON(r)
	}
	a.notef("%s was added with %s", r.Device.GetName(), joined(r.Device.GetAddresses()))
	k.remark(a)
	return nil
}

type deviceRotateCmd struct {
	deviceArg
	keyFlags
}

func (c *deviceRotateCmd) Run(ctx context.Context, a *app) error {
	k, err := c.prepare()
	if err != nil {
		return err
	}
	defer k.discard()
	r, err := a.api.devices().RotateDevice(ctx, &vpnv1.RotateDeviceRequest{Name: c.Device, PublicKey: k.public})
	if err != nil {
		return err
	}
	if r.Config, err = k.deliver(a, r.Config); err != nil {
		return fmt.Errorf("%w; the key was changed: vpnctl device rotate %s gives it another config", err, r.Device.GetName())
	}
	if a.json {
		err = a.printJSON(r)
	} else {
		a.notef("%s has a new key%s", r.Device.GetName(), closedOn(r.Closed))
		k.remark(a)
	}
	if err != nil {
		return err
	}
	return a.closed(r.Closed)
}

type deviceLsCmd struct {
	User     string `arg:"" optional:"" help:"Whose; everybody's by default." predictor:"user"`
	Outdated bool   `help:"Only those whose config lacks a route of today's settings."`
}

func (c *deviceLsCmd) Run(ctx context.Context, a *app) error {
	r, err := a.api.devices().ListDevices(ctx, &vpnv1.ListDevicesRequest{User: c.User, Outdated: c.Outdated})
	if err != nil {
		return err
	}
	if a.json {
		return a.printJSON(r)
	}
	switch {
	case len(r.Devices) > 0:
		a.deviceTable(r.Devices)
	case c.Outdated:
		a.notef("every config has all routes")
	default:
		a.notef("no devices yet: people add theirs by an invitation (vpnctl user invite NAME), you by vpnctl device add USER NAME")
	}
	return nil
}

func (a *app) deviceTable(devices []*vpnv1.Device) {
	t := newTable("DEVICE", "ADDRESS", "STATE", "LAST HANDSHAKE", "")
	for _, d := range devices {
		addr := ""
		if len(d.Addresses) > 0 {
			addr = d.Addresses[0]
		}
		note := cell{}
		if d.OutdatedConfig {
			note = cell{"needs a new config", warn}
		}
		t.add(text(d.Name), text(addr), a.deviceState(d), a.handshake(d), note)
	}
	t.draw(a.ui)
}

func (a *app) deviceState(d *vpnv1.Device) cell {
	switch {
	case d.Disabled:
		return cell{"disabled", bad}
	case d.SessionExpiresAt != nil && d.SessionExpiresAt.AsTime().After(a.now()):
		return cell{"signed in, ends " + a.relative(d.SessionExpiresAt.AsTime()), good}
	}
	return text("signed out")
}

func (a *app) handshake(d *vpnv1.Device) cell {
	if d.LastHandshakeAt == nil {
		return cell{"never", faint}
	}
	t := d.LastHandshakeAt.AsTime()
	if a.now().Sub(t) < 3*time.Minute { // a live tunnel renews its keys every two minutes
		return cell{a.relative(t), good}
	}
	return text(a.relative(t))
}

type deviceShowCmd struct{ deviceArg }

func (c *deviceShowCmd) Run(ctx context.Context, a *app) error {
	r, err := a.api.devices().GetDevice(ctx, &vpnv1.GetDeviceRequest{Name: c.Device})
	if err != nil {
		return err
	}
	if a.json {
		return a.printJSON(r)
	}
	d := r.Device
	var f facts
	f.addStyled("device", d.GetName(), bold)
	state := a.deviceState(d)
	f.addStyled("state", state.text, state.style)
	f.add("session ends", a.when(d.SessionExpiresAt))
	f.add("addresses", joined(d.Addresses))
	f.add("tags", joined(d.Tags))
	f.add("public key", d.PublicKey)
	f.add("added", a.when(d.CreatedAt))
	if d.LastHandshakeAt == nil {
		f.add("handshake", "never: its config has not been used yet")
	}
	f.add("handshake", a.when(d.LastHandshakeAt))
	f.add("endpoint", d.Endpoint)
	if d.ReceivedBytes+d.SentBytes > 0 {
		f.add("traffic", fmt.Sprintf("%s received, %s sent", size(d.ReceivedBytes), size(d.SentBytes)))
	}
	if d.OutdatedConfig {
		f.addStyled("config", fmt.Sprintf("lacks a route of today's settings: vpnctl device rotate %s gives it another", d.Name), warn)
	}
	f.draw(a.ui)
	return nil
}

type deviceDisableCmd struct{ deviceArg }

func (c *deviceDisableCmd) Run(ctx context.Context, a *app) error {
	return a.enableDevice(ctx, c.Device, false)
}

type deviceEnableCmd struct{ deviceArg }

func (c *deviceEnableCmd) Run(ctx context.Context, a *app) error {
	return a.enableDevice(ctx, c.Device, true)
}

func (a *app) enableDevice(ctx context.Context, name string, enabled bool) error {
	r, err := a.api.devices().SetDeviceEnabled(ctx, &vpnv1.SetDeviceEnabledRequest{Name: name, Enabled: enabled})
	if err != nil {
		return err
	}
	switch {
	case a.json:
		err = a.printJSON(r)
	case enabled && r.Device.GetDisabled():
		a.printf("%s is enabled, but its user is not: vpnctl user enable lets both in.\n", r.Device.GetName())
	case enabled:
		a.printf("%s is enabled; it has to sign in again.\n", r.Device.GetName())
	default:
		a.printf("%s is disabled%s.\n", r.Device.GetName(), closedOn(r.Closed))
	}
	if err != nil {
		return err
	}
	return a.closed(r.Closed)
}

type deviceRmCmd struct {
	deviceArg
	Yes bool `short:"y" help:"Do not ask."`
}

func (c *deviceRmCmd) Run(ctx context.Context, a *app) error {
	if !c.Yes {
		d, err := a.api.devices().GetDevice(ctx, &vpnv1.GetDeviceRequest{Name: c.Device})
		if err != nil {
			return err
		}
		if err := a.confirm(ctx, false, fmt.Sprintf("remove %s, for good?", d.Device.GetName())); err != nil {
			return err
		}
	}
	r, err := a.api.devices().RemoveDevice(ctx, &vpnv1.RemoveDeviceRequest{Name: c.Device})
	if err != nil {
		return err
	}
	if a.json {
		err = a.printJSON(r)
	} else {
		a.printf("%s is removed, its key refused ever after%s.\n", c.Device, closedOn(r.Closed))
	}
	if err != nil {
		return err
	}
	return a.closed(r.Closed)
}
