package netstack

import (
	"net/netip"
	"slices"
	"time"

	"vpnd/internal/dataplane"
)

// The peer of a device that was removed goes last: the resets that tell it of its flows are
// still on their way. Nothing else passes: the filter does not know the device any more.

// leaveTime is how long a peer may stay for that. Once nothing waits for WireGuard any more,
// it has sent what there was within leaveGrace.
const (
	leaveTime  = 500 * time.Millisecond
	leaveGrace = 50 * time.Millisecond
)

// leaveLocked takes the peers of gone away when their flows have been told. Those whose key
// or address is wanted by put go at once.
func (p *Plane) leaveLocked(gone, put []dataplane.Device) error {
	if len(gone)+len(p.leaving) == 0 {
		return nil
	}
	keys, addrs := make(map[dataplane.Key]bool), make(map[netip.Addr]bool)
	for _, d := range put {
		keys[d.PublicKey] = true
		for _, a := range d.Addrs {
			addrs[a] = true
		}
	}
	for _, d := range gone {
		p.leaving[d.PublicKey] = d
	}
	var now []dataplane.Device
	for k, d := range p.leaving {
		if keys[k] || slices.ContainsFunc(d.Addrs, func(a netip.Addr) bool { return addrs[a] }) {
			delete(p.leaving, k)
			p.devices.left(d)
			now = append(now, d)
		}
	}
	if len(p.leaving) > 0 {
		go p.seeOff(gone)
	}
	return p.wg.peers(now, nil)
}

// seeOff waits for the resets and takes the peers away.
func (p *Plane) seeOff(gone []dataplane.Device) {
	for begin := time.Now(); len(p.link.out)+p.link.resets.len() > 0 && time.Since(begin) < leaveTime-leaveGrace; {
		time.Sleep(time.Millisecond)
	}
	time.Sleep(leaveGrace)
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return
	}
	var left []dataplane.Device
	for _, d := range gone {
		if _, ok := p.leaving[d.PublicKey]; ok {
			delete(p.leaving, d.PublicKey)
			p.devices.left(d)
			left = append(left, d)
		}
	}
	if err := p.wg.peers(left, nil); err != nil {
		p.cfg.Log.Warn("taking away the peers of devices that are gone", "why", err)
	}
}
