package linux

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"vpnd/internal/dataplane"
)

// Update implements dataplane.Plane. One that failed can be repeated as it was.
func (p *Plane) Update(ctx context.Context, c dataplane.Change) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return ErrClosed
	}
	if p.want == nil || !p.watched {
		return errors.New("data plane: Update before Set")
	}
	before := p.want.named(c)
	gone, shrink, put, moved := p.want.apply(c)
	closing := dataplane.Change{RemoveDevices: append(moved, c.RemoveDevices...), EndSessions: c.EndSessions}
	opening := dataplane.Change{PutDevices: c.PutDevices, PutSessions: c.PutSessions, Rules: c.Rules, Services: c.Services}
	if len(closing.RemoveDevices)+len(closing.EndSessions) > 0 {
		if err := p.filter.Update(ctx, closing); err != nil {
			p.want.restore(before) // no peer has been changed
			return fmt.Errorf("closing in the packet filter: %w", err)
		}
	}
	for _, d := range gone {
		p.leaving[d.PublicKey] = d
	}
	shrink = slices.Concat(p.leaveLocked(gone), p.makeRoomLocked(c.PutDevices), shrink)
	if err := p.configure(append(shrink, put...)); err != nil {
		// The interface may just have been lost: make it anew, with the peers as they are
		// wanted now. If that works the change has been made as well.
		p.suspect.Store(true)
		drift, err2 := p.settle(nil, nil)
		defer func() { go p.report(drift) }()
		if err2 != nil {
			p.want.restore(before)
			return errors.Join(err, err2)
		}
	}
	p.services.awaitChange(c)
	if c.Services != nil {
		if err := p.beforeServices(c.Services); err != nil {
			return err
		}
	}
	if len(opening.PutDevices)+len(opening.PutSessions) > 0 || opening.Rules != nil || opening.Services != nil {
		if err := p.filter.Update(ctx, opening); err != nil {
			return fmt.Errorf("opening in the packet filter: %w", err)
		}
	}
	p.services.change(c)
	return nil
}

// beforeServices makes ready what services need before the packet filter leads to them: the
// relay, and forwarding to where they lead.
func (p *Plane) beforeServices(list []dataplane.Service) error {
	p.want.services = list
	moved, err := p.services.look()
	if err != nil {
		return err
	}
	p.moved = p.moved || moved
	if err := p.bindRelay(); err != nil {
		return err
	}
	if slices.Equal(p.services.targets(), p.led) {
		return nil
	}
	p.reroute = true
	drift, err := p.settle(nil, nil)
	go p.report(drift)
	return err
}

// named are the devices that c names as d has them; nil where there is none.
func (d *desired) named(c dataplane.Change) map[dataplane.Key]*dataplane.Device {
	out := make(map[dataplane.Key]*dataplane.Device)
	for _, list := range [][]dataplane.Device{c.RemoveDevices, c.PutDevices} {
		for _, dev := range list {
			out[dev.PublicKey] = nil
			if old, ok := d.devices[dev.PublicKey]; ok {
				out[dev.PublicKey] = &old
			}
		}
	}
	return out
}

// restore takes back what apply did: the change has failed, and is still to be made.
func (d *desired) restore(before map[dataplane.Key]*dataplane.Device) {
	for k, old := range before {
		if old == nil {
			delete(d.devices, k)
		} else {
			d.devices[k] = *old
		}
	}
}

// apply changes the desired state and says how the peers follow: shrink first, then put,
// and the peers of the devices that are gone last. moved are the devices that keep their
// key and lose an address.
func (d *desired) apply(c dataplane.Change) (gone []dataplane.Device, shrink, put []wgtypes.PeerConfig, moved []dataplane.Device) {
	for _, dev := range c.RemoveDevices {
		if old, ok := d.devices[dev.PublicKey]; ok {
			delete(d.devices, dev.PublicKey)
			gone = append(gone, old)
		}
	}
	own := dataplane.Key(wgtypes.Key(d.gateway.PrivateKey).PublicKey())
	for _, dev := range c.PutDevices {
		if dev.PublicKey == own {
			continue
		}
		if old, ok := d.devices[dev.PublicKey]; ok {
			if sameDevice(old, dev) {
				d.devices[dev.PublicKey] = dev
				continue
			}
			keep, lost := kept(prefixes(old.Addrs), dev.Addrs)
			if lost {
				shrink = append(shrink, trimPeer(dev.PublicKey, keep))
				gone := old
				gone.Addrs = slices.DeleteFunc(slices.Clone(old.Addrs), func(a netip.Addr) bool { return slices.Contains(keep, a) })
				moved = append(moved, gone)
			}
		}
		d.devices[dev.PublicKey] = dev
		put = append(put, putPeer(dev))
	}
	return gone, shrink, put, moved
}
