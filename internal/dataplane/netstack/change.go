package netstack

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"vpnd/internal/dataplane"
)

// differenceLocked is the change from what is to s.
func (p *Plane) differenceLocked(s dataplane.State) dataplane.Change {
	c := dataplane.Change{Services: append([]dataplane.Service{}, s.Services...)} // none is not nil
	if s.Rules != p.rules.Load() {
		c.Rules = s.Rules
	}
	want := make(map[dataplane.Key]*dataplane.Device, len(s.Devices))
	for i := range s.Devices {
		d := &s.Devices[i]
		want[d.PublicKey] = d
		old := p.byKey[d.PublicKey]
		if old == nil || old.dev.PresharedKey != d.PresharedKey || old.dev.ID != d.ID ||
			old.dev.Name != d.Name || !slices.Equal(old.dev.Addrs, d.Addrs) {
			c.PutDevices = append(c.PutDevices, *d)
		}
	}
	for key, old := range p.byKey {
		if want[key] == nil {
			c.RemoveDevices = append(c.RemoveDevices, old.dev)
		}
	}
	live := make(map[netip.Addr]*dataplane.Session, len(s.Sessions))
	for i := range s.Sessions {
		for _, a := range s.Sessions[i].Addrs {
			live[a] = &s.Sessions[i]
		}
	}
	for _, d := range p.byKey {
		old := d.session.Load()
		if old == nil {
			continue
		}
		var now *dataplane.Session
		if len(d.dev.Addrs) > 0 {
			now = live[d.dev.Addrs[0]]
		}
		if now == nil || len(now.Codes) == 0 || now.Codes[0].Serial != old.first {
			c.EndSessions = append(c.EndSessions, dataplane.Session{Device: d.dev.ID, Addrs: d.dev.Addrs})
		}
	}
	for _, n := range s.Sessions {
		if len(n.Addrs) > 0 {
			if d := p.devices.get(n.Addrs[0]); d != nil && slices.Equal(d.dev.Addrs, n.Addrs) &&
				p.byKey[d.dev.PublicKey] == d && want[d.dev.PublicKey] != nil && d.session.Load().same(n) {
				continue
			}
		}
		c.PutSessions = append(c.PutSessions, n)
	}
	return c
}

// applyLocked carries out c: what closes, the flows that must die, then what opens.
func (p *Plane) applyLocked(c dataplane.Change) error {
	var errs []error
	var touched []netip.Addr
	for _, s := range c.EndSessions {
		for _, a := range s.Addrs {
			if d := p.devices.get(a); d != nil {
				p.endSession(d, nil)
			}
		}
		touched = append(touched, s.Addrs...)
	}
	for _, d := range c.RemoveDevices {
		if old := p.byKey[d.PublicKey]; old != nil {
			touched = append(touched, old.dev.Addrs...)
			p.forgetLocked(old)
		}
	}
	// A device that is put with other addresses than it had, or with another's, begins
	// anew: nobody inherits a session.
	for _, d := range c.PutDevices {
		if old := p.byKey[d.PublicKey]; old != nil && !slices.Equal(old.dev.Addrs, d.Addrs) {
			touched = append(touched, old.dev.Addrs...)
			p.forgetLocked(old)
		}
		for _, a := range d.Addrs {
			if other := p.devices.get(a); other != nil && other.dev.PublicKey != d.PublicKey {
				touched = append(touched, other.dev.Addrs...)
				p.forgetLocked(other)
				c.RemoveDevices = append(c.RemoveDevices, other.dev)
			}
		}
	}
	var services map[netip.Addr]*dataplane.Service
	var gone bool
	if c.Services != nil {
		services = byAddress(c.Services)
		gone = p.withdraw(services)
	}
	if c.Rules != nil {
		p.rules.Store(c.Rules)
	}
	for _, d := range c.RemoveDevices {
		p.devices.leave(d)
	}
	p.settle(touched, c.Rules != nil || gone)
	if services != nil {
		p.services.Store(&services)
	}
	if err := p.leaveLocked(c.RemoveDevices, c.PutDevices); err != nil {
		errs = append(errs, err)
	}

	if err := p.putPeersLocked(c.PutDevices); err != nil {
		errs = append(errs, err)
		c.PutDevices = nil // so that the next Set finds them missing and tries again
	}
	for _, d := range c.PutDevices {
		if old := p.byKey[d.PublicKey]; old != nil {
			addrs := old.dev.Addrs
			old.dev = d
			old.dev.Addrs = addrs
			old.name.Store(&d.Name)
			continue
		}
		n := newPeer(d)
		p.byKey[d.PublicKey] = n
		p.devices.put(n)
	}
	touched = touched[:0]
	for _, s := range c.PutSessions {
		if err := p.putSession(s); err != nil {
			errs = append(errs, err)
		}
		touched = append(touched, s.Addrs...)
	}
	p.settle(touched, false)
	return errors.Join(errs...)
}

// settle makes every flow that a change may have touched judged anew, at once.
func (p *Plane) settle(addrs []netip.Addr, all bool) {
	p.gen.Add(1)
	fs := p.flows.of(addrs)
	if all {
		fs = p.flows.all()
	}
	now := time.Now()
	for _, f := range fs {
		if !p.allowed(f, now) {
			p.cut(f) // or wait for whoever is cutting it
		}
	}
}

// forgetLocked takes a device out of the filter; WireGuard's peer is the caller's.
func (p *Plane) forgetLocked(d *peer) {
	p.endSession(d, nil)
	p.devices.remove(d)
	if p.byKey[d.dev.PublicKey] == d {
		delete(p.byKey, d.dev.PublicKey)
	}
}

// putSession opens or renews a session.
func (p *Plane) putSession(s dataplane.Session) error {
	if len(s.Addrs) == 0 || len(s.Codes) == 0 {
		return fmt.Errorf("netstack: session of device %s has no address or no code", s.Device)
	}
	d := p.devices.get(s.Addrs[0])
	if d == nil {
		return fmt.Errorf("netstack: session for %v, which is no enabled device's address", s.Addrs[0])
	}
	old := d.session.Load()
	n := newSession(s, old)
	// By the monotonic clock: setting the host's clock back does not prolong a session.
	// Verdicts go by the wall clock as well, so setting it forward ends one.
	n.timer = time.AfterFunc(max(time.Until(s.Until), 0), func() {
		if p.endSession(d, n) {
			p.settle(d.addrs, false)
		}
	})
	d.session.Store(n)
	if old != nil {
		old.timer.Stop()
	}
	return nil
}

// endSession ends d's session, if it still is s or s is nil.
func (p *Plane) endSession(d *peer, s *session) bool {
	old := d.session.Load()
	if old == nil || s != nil && old != s || !d.session.CompareAndSwap(old, nil) {
		return false
	}
	old.timer.Stop()
	return true
}
