package linux

import (
	"net/netip"
	"time"

	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"vpnd/internal/dataplane"
)

// The peer of a device that was removed goes last: until its flows have been told it is
// the only way to its end of them. The filter lets nothing else pass meanwhile.

// leaveTime is how long a peer may stay for that.
const leaveTime = 500 * time.Millisecond

// leaveLocked has the peers of gone, which are in p.leaving and of which the filter has just
// been told, taken away when their flows have been told, and returns those that can go now.
func (p *Plane) leaveLocked(gone []dataplane.Device) (now []wgtypes.PeerConfig) {
	if len(gone) == 0 {
		return nil
	}
	told := p.filter.Told()
	select {
	case <-told:
		return p.leftLocked(gone)
	default:
	}
	p.done.Go(func() {
		select {
		case <-told:
		case <-time.After(leaveTime):
		case <-p.ctx.Done():
			return // with the whole interface
		}
		p.mu.Lock()
		defer p.mu.Unlock()
		peers := p.leftLocked(gone)
		if p.closed || p.link == nil {
			return
		}
		if err := p.configure(peers); err != nil {
			p.suspect.Store(true)
			p.wake() // what is there without being wanted is taken away then
		}
	})
	return nil
}

// leftLocked ends the stay of gone, and returns the peers to be removed.
func (p *Plane) leftLocked(gone []dataplane.Device) (out []wgtypes.PeerConfig) {
	for _, d := range gone {
		if x, ok := p.leaving[d.PublicKey]; ok && x.ID == d.ID {
			delete(p.leaving, d.PublicKey)
			out = append(out, removePeer(d.PublicKey))
		}
	}
	return out
}

// makeRoomLocked ends the stay of peers whose key or address is wanted by devices that are
// put now, and returns which of them are to be removed before.
func (p *Plane) makeRoomLocked(put []dataplane.Device) (out []wgtypes.PeerConfig) {
	if len(p.leaving) == 0 || len(put) == 0 {
		return nil
	}
	taken := make(map[netip.Addr]bool)
	for _, d := range put {
		delete(p.leaving, d.PublicKey)
		for _, a := range d.Addrs {
			taken[a] = true
		}
	}
	for k, d := range p.leaving {
		for _, a := range d.Addrs {
			if taken[a] {
				delete(p.leaving, k)
				out = append(out, removePeer(k))
				break
			}
		}
	}
	return out
}
