package netstack

import (
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"

	"golang.org/x/time/rate"

	"vpnd/internal/dataplane"
)

// peer is an enabled device. A peer that was removed is never used again: a device that
// comes back is another peer.
type peer struct {
	dev     dataplane.Device       // read and changed under Plane.mu only
	addrs   []netip.Addr           // never changed
	name    atomic.Pointer[string] // dev.Name, for who dials
	session atomic.Pointer[session]
	answers *rate.Limiter // of refusals that are answered
	late    lateResets    // and those that were over it
	flows   atomic.Int32  // begun by it and still in the table, but those to the portal
	portal  int           // these; guarded by the table's lock
	apps    atomic.Int32  // connections to the app
	dials   atomic.Int32  // of them, the TCP flows whose resource is being dialled
}

// Refusals answered to one device: enough for a browser that opens a page of many
// refused connections, too little to amplify anything.
const (
	answersPerSecond = 100
	answersBurst     = 200
)

func newPeer(d dataplane.Device) *peer {
	d.Addrs = slices.Clone(d.Addrs)
	n := &peer{dev: d, addrs: d.Addrs, answers: rate.NewLimiter(answersPerSecond, answersBurst)}
	n.name.Store(&d.Name)
	return n
}

// devices finds peers by tunnel address. Packets only read it.
type devices struct {
	mu     sync.RWMutex
	byAddr map[netip.Addr]*peer
	// leaving are the addresses of removed devices whose peers are still there.
	leaving map[netip.Addr]bool
}

// get returns the enabled device at a, or nil.
func (d *devices) get(a netip.Addr) *peer {
	d.mu.RLock()
	p := d.byAddr[a]
	d.mu.RUnlock()
	return p
}

// leave notes that d was removed, and that its peer is still there.
func (d *devices) leave(dev dataplane.Device) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.leaving == nil {
		d.leaving = make(map[netip.Addr]bool)
	}
	for _, a := range dev.Addrs {
		d.leaving[a] = true
	}
}

// left ends that.
func (d *devices) left(dev dataplane.Device) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, a := range dev.Addrs {
		delete(d.leaving, a)
	}
}

// isLeaving says whether a is the address of a device that was removed just now.
func (d *devices) isLeaving(a netip.Addr) bool {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return d.leaving[a]
}

// put gives p its addresses.
func (d *devices) put(p *peer) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, a := range p.addrs {
		d.byAddr[a] = p
	}
}

// remove takes p's addresses away, unless they are another's by now.
func (d *devices) remove(p *peer) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, a := range p.addrs {
		if d.byAddr[a] == p {
			delete(d.byAddr, a)
		}
	}
}
