package netstack

import (
	"encoding/binary"
	"fmt"
	"math/bits"
	"net/netip"
	"slices"

	"gvisor.dev/gvisor/pkg/tcpip/header"

	"vpnd/internal/dataplane/line"
)

// watchLine fits the tunnel anew when the host's lines change.
func (p *Plane) watchLine() {
	err := line.Watch(p.ctx, func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		if !p.closed {
			p.fitLocked()
		}
	})
	if err != nil {
		p.cfg.Log.Warn("the tunnel's MTU does not follow the host's line; set it with vpnctl settings set --mtu", "what", "mtu", "why", err)
	}
}

// fitLocked gives the tunnel its MTU: the one set by hand, or what the host's line carries.
// The stack's TCP follows it both ways, by the segment size that it announces and by that
// of what it sends.
func (p *Plane) fitLocked() {
	g := p.near.Load()
	mtu, why := g.MTU, fmt.Sprintf("MTU %d (set by hand)", g.MTU)
	if mtu == 0 {
		l, err := line.Read("")
		if err != nil {
			p.cfg.Log.Warn("the tunnel keeps its MTU", "what", p.link.mtu.Load(), "why", err)
			return
		}
		mtu = l.Tunnel(slices.ContainsFunc(g.Network, func(n netip.Prefix) bool { return n.Addr().Is6() }))
		why = l.Why(mtu)
	}
	p.why = why
	if p.link.setMTU(mtu) {
		p.cfg.Log.Info("the tunnel has another MTU", "what", "mtu", "why", why)
	}
}

// clampMSS lowers the segment size that a TCP packet from device to device announces to
// what a tunnel of this MTU carries; the TCP header of the IP packet b begins at l4. Ends
// that do not hear of a narrow path know no other way.
func clampMSS(b []byte, l4, mtu int) {
	t := b[l4:]
	if t[13]&flagSYN == 0 {
		return
	}
	limit := uint16(mtu - l4 - 20)
	for at, end := 20, int(t[12]>>4)*4; at < end; {
		if t[at] == header.TCPOptionNOP {
			at++
			continue
		}
		if t[at] == header.TCPOptionEOL || at+1 >= end || t[at+1] < 2 || at+int(t[at+1]) > end {
			return
		}
		if t[at] == header.TCPOptionMSS && t[at+1] == header.TCPOptionMSSLength {
			if was := binary.BigEndian.Uint16(t[at+2:]); was > limit {
				binary.BigEndian.PutUint16(t[at+2:], limit)
				if at%2 == 1 { // it lies across two words of the checksum
					was, limit = bits.ReverseBytes16(was), bits.ReverseBytes16(limit)
				}
				// RFC 1624: HC' = ~(~HC + ~m + m').
				sum := uint32(^binary.BigEndian.Uint16(t[16:])) + uint32(^was) + uint32(limit)
				sum = sum>>16 + sum&0xffff
				binary.BigEndian.PutUint16(t[16:], ^uint16(sum+sum>>16))
			}
			return
		}
		at += int(t[at+1])
	}
}
