package linux

import (
	"context"
	"crypto/subtle"
	"errors"
	"fmt"
	"os"
	"slices"

	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"vpnd/internal/dataplane"
)

// maxPeersGo is wireguard-go's limit (device.MaxPeers).
const maxPeersGo = 1 << 16

// Set implements dataplane.Plane. The first one checks the host before it changes
// anything; every one goes through the stages in an order in which nothing is open
// that should not be.
func (p *Plane) Set(ctx context.Context, s dataplane.State) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return ErrClosed
	}
	if p.want == nil {
		if err := p.firstLocked(s.Gateway); err != nil {
			return err
		}
	}
	want := newDesired(s)
	gone := p.want.gone(want)
	for _, d := range gone {
		p.leaving[d.PublicKey] = d
	}
	p.makeRoomLocked(s.Devices) // what is to be removed is found and removed below
	p.want = want
	p.services.await(s)
	p.reroute = true
	closed := false
	_, err := p.settle(func() error {
		err := p.filter.Set(ctx, s)
		if closed = err == nil; closed {
			p.services.set(s)
			err = p.configure(p.leaveLocked(gone))
		}
		return err
	}, nil)
	if !closed {
		for _, d := range gone {
			delete(p.leaving, d.PublicKey)
		}
	}
	if err != nil {
		return err
	}
	if !p.watched {
		p.watched = true
		return p.startWatching()
	}
	return nil
}

// firstLocked takes the host, having changed nothing.
func (p *Plane) firstLocked(g dataplane.Gateway) error {
	if err := precheck(p.c, g, p.wg); err != nil {
		return err
	}
	lock, err := takeLock()
	if err != nil {
		return err
	}
	sys, err := openSysctls("/proc/sys", p.o.StateDir)
	if err != nil {
		lock.Close()
		return err
	}
	p.lock, p.sys = lock, sys
	if a := g.Listen.Addr(); a.IsValid() && !a.IsUnspecified() {
		p.c.Log.Warn("WireGuard takes its UDP port on every address of the host: the linux plane cannot limit it", "what", g.Listen)
	}
	return nil
}

// settle makes everything but the filter what it should be, and calls filter (if it is
// not nil) between what closes and what opens. device is WireGuard's configuration, when
// it was just read; WireGuard is compared then, or when there is another reason to. It
// returns what it found otherwise.
func (p *Plane) settle(filter func() error, device *wgtypes.Device) ([]dataplane.Drift, error) {
	var drift []dataplane.Drift
	if p.services.any() {
		moved, err := p.services.look()
		if err != nil {
			return nil, err
		}
		p.moved, p.reroute = p.moved || moved, p.reroute || moved
	}
	rerouted := p.reroute
	if p.reroute {
		routes, err := readRoutes()
		if err != nil {
			return nil, err
		}
		p.led = p.services.targets()
		p.outs = findOutputs(slices.Concat(p.want.gateway.Routes, p.led), routes, p.c.Interface)
		if err := p.refit(); err != nil {
			return nil, err
		}
		p.reroute = false
	}
	d, err := p.settleRules()
	drift = append(drift, d...)
	if err != nil {
		return drift, err
	}
	d, fresh, err := p.settleLink()
	drift = append(drift, d...)
	if err != nil {
		return drift, err
	}
	var diff peerDiff
	if p.suspect.Swap(false) || filter != nil || fresh || device != nil {
		if diff, err = p.settleDevice(device); err != nil {
			p.suspect.Store(true)
			return drift, err
		}
		if !fresh {
			drift = append(drift, diff.drift...)
		}
	}
	if filter == nil && p.moved && len(p.want.services) > 0 {
		filter = func() error {
			return p.filter.Update(context.Background(), dataplane.Change{Services: p.want.services})
		}
	}
	if filter != nil {
		if err := filter(); err != nil {
			return drift, fmt.Errorf("setting the packet filter: %w", err)
		}
		p.moved = false
	}
	d, err = p.openLink(fresh, fresh || rerouted)
	drift = append(drift, d...)
	if err != nil {
		return drift, err
	}
	if err := p.putPeers(diff.put); err != nil {
		p.suspect.Store(true)
		return drift, err
	}
	if p.deaf {
		p.deaf = false
		if err := p.prod(); err != nil {
			return drift, err
		}
	}
	d, err = p.setForwarding()
	return append(drift, d...), err
}

// settleRules plans the guards and makes the routing rules what they should be.
func (p *Plane) settleRules() ([]dataplane.Drift, error) {
	g, err := p.planForwarding()
	if err != nil {
		return nil, err
	}
	same := g.equal(p.guards)
	p.guards = g
	added, deleted, err := repairRules(wantRules(p.c.Interface, p.want.gateway.Network, g))
	if err != nil || !same {
		return nil, err
	}
	var drift []dataplane.Drift
	for _, r := range added {
		drift = append(drift, dataplane.Drift{What: r.String(), Was: "removed"})
	}
	for _, r := range deleted {
		drift = append(drift, dataplane.Drift{What: r.String(), Was: "added"})
	}
	return drift, nil
}

// settleLink makes sure that the interface is there, as we made it; fresh says that it
// is not the one it was before.
func (p *Plane) settleLink() (drift []dataplane.Drift, fresh bool, err error) {
	if p.link != nil {
		_, ok, err := p.link.present()
		if err != nil || ok {
			return nil, false, err
		}
		drift = append(drift, dataplane.Drift{What: "interface " + p.c.Interface, Was: "removed"})
		if p.link.engine != nil && !p.link.engine.dead() {
			return drift, true, p.link.renew()
		}
		if err := p.link.remove(); err != nil {
			return drift, false, fmt.Errorf("removing what is left of interface %s: %w", p.c.Interface, err)
		}
		p.link = nil
	}
	if p.link, err = p.makeLink(p.want.gateway.PrivateKey); err != nil {
		return drift, false, err
	}
	return drift, true, nil
}

// settleDevice compares WireGuard's configuration d (nil: reads it), corrects its key and
// port, and takes away the peers and addresses that should not be there. What it returns is
// still to be put.
func (p *Plane) settleDevice(d *wgtypes.Device) (peerDiff, error) {
	name := p.c.Interface
	if d == nil {
		var err error
		if d, err = p.wg.Device(name); err != nil {
			return peerDiff{}, fmt.Errorf("reading WireGuard interface %s: %w", name, err)
		}
	}
	if p.link.engine != nil && len(p.want.devices) > maxPeersGo {
		return peerDiff{}, fmt.Errorf("wireguard-go takes at most %d peers, and %d devices are enabled; load the kernel's wireguard module", maxPeersGo, len(p.want.devices))
	}
	d.Peers = slices.DeleteFunc(d.Peers, func(h wgtypes.Peer) bool {
		_, ok := p.leaving[dataplane.Key(h.PublicKey)]
		return ok
	})
	diff := diffPeers(d.Peers, p.want.devices)
	if err := p.configure(diff.shrink); err != nil {
		return diff, err
	}
	var c wgtypes.Config
	g := p.want.gateway
	port, key := int(g.Listen.Port()), wgtypes.Key(g.PrivateKey)
	if subtle.ConstantTimeCompare(d.PrivateKey[:], key[:]) != 1 {
		c.PrivateKey = &key
		p.deaf = true
		diff.drift = append(diff.drift, dataplane.Drift{What: "private key of " + name, Was: "changed"})
	}
	if d.ListenPort != port && port != 0 {
		c.ListenPort = &port
		diff.drift = append(diff.drift, dataplane.Drift{What: "UDP port of " + name, Was: "changed"})
	}
	if zero := 0; d.FirewallMark != 0 {
		c.FirewallMark = &zero
		diff.drift = append(diff.drift, dataplane.Drift{What: "fwmark of " + name, Was: "changed"})
	}
	if c.PrivateKey == nil && c.ListenPort == nil && c.FirewallMark == nil {
		return diff, nil
	}
	if err := p.wg.ConfigureDevice(name, c); err != nil {
		if c.ListenPort != nil {
			return diff, fmt.Errorf("giving %s its key and UDP port %d: %w", name, port, err)
		}
		return diff, fmt.Errorf("giving %s its key: %w", name, err)
	}
	return diff, nil
}

// openLink gives the interface its sysctls and addresses and brings it up. Its routes are
// looked at when routes have changed: a host may have very many.
func (p *Plane) openLink(fresh, rerouted bool) ([]dataplane.Drift, error) {
	drift, err := p.linkSysctls()
	if err != nil {
		return drift, err
	}
	k, ok, err := p.link.present()
	if err != nil {
		return drift, err
	}
	if !ok {
		return drift, fmt.Errorf("interface %s went away while it was set up", p.c.Interface)
	}
	d, err := p.repairLink(k, rerouted)
	drift = append(drift, d...)
	if err != nil {
		return drift, err
	}
	if fresh {
		drift = nil
	}
	if err := p.portal.bind(p.link.index, p.want.gateway); err != nil {
		return drift, err
	}
	return drift, p.bindRelay()
}

// configure changes peers.
func (p *Plane) configure(peers []wgtypes.PeerConfig) error {
	if len(peers) == 0 {
		return nil
	}
	p.changes++
	if err := p.wg.ConfigureDevice(p.c.Interface, wgtypes.Config{Peers: peers}); err != nil {
		if errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("changing peers of %s: the interface is gone", p.c.Interface)
		}
		return fmt.Errorf("changing peers of %s: %w", p.c.Interface, err)
	}
	return nil
}
