package netstack

import (
	"sync"

	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
)

// Thousands of flows that are cut at once are more resets and ICMP errors than the queue to WireGuard holds,
// and an end that only waits learns of its cut by that one packet. They are never dropped:
// they wait here for their turn. There are no more of them than there were flows.

// resets are packets that found the queue full.
type resets struct {
	mu   sync.Mutex
	list []outPacket
	more chan struct{} // capacity 1: there may be some
}

func (r *resets) add(o outPacket) {
	r.mu.Lock()
	r.list = append(r.list, o)
	r.mu.Unlock()
	r.wake()
}

func (r *resets) wake() {
	select {
	case r.more <- struct{}{}:
	default:
	}
}

// take takes up to n of them.
func (r *resets) take(n int) []outPacket {
	r.mu.Lock()
	defer r.mu.Unlock()
	n = min(n, len(r.list))
	out := r.list[:n:n]
	if r.list = r.list[n:]; len(r.list) > 0 {
		r.wake()
	} else {
		r.list = nil
	}
	return out
}

func (r *resets) len() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.list)
}

// sendReset is send for a reset, and for the ICMP error that is UDP's.
func (l *link) sendReset(raw []byte) {
	select {
	case l.out <- outPacket{raw: raw}:
	default:
		l.resets.add(outPacket{raw: raw})
	}
}

// isReset says whether a packet of the stack's is a TCP reset.
func isReset(pkt *stack.PacketBuffer) bool {
	h := header.TCP(pkt.TransportHeader().Slice())
	return pkt.TransportProtocolNumber == header.TCPProtocolNumber && len(h) >= header.TCPMinimumSize && h.Flags().Contains(header.TCPFlagRst)
}
