package netstack

import (
	"encoding/binary"
	"sync/atomic"
	"time"

	"vpnd/internal/dataplane/relay"
)

// Flows between two devices pass packet by packet, so their end is seen from outside.

// How long a flow between devices lives without a packet. TCP's is that of Linux's
// conntrack for "established" cut down to what a session may last.
const (
	peerTCPIdle   = 12 * time.Hour
	peerTCPOpen   = time.Minute      // not answered yet, or both ends have finished
	peerTCPReset  = 10 * time.Second // after a reset
	peerOtherIdle = 2 * time.Minute
	pingIdle      = 30 * time.Second
)

// track follows a TCP connection by its flags.
func (f *flow) track(pk *packet, forwards bool) {
	if f.key.proto != protoTCP || pk.proto != protoTCP {
		return
	}
	end := 0
	var bits uint32
	if !forwards {
		end = 1
		bits |= tcpReplied
	}
	f.next[end].note(pk, pk.opens() || pk.flags&flagSYN != 0)
	if pk.flags&flagRST != 0 {
		bits |= tcpWasReset
	}
	if pk.flags&flagFIN != 0 {
		if forwards {
			bits |= tcpFINForward
		} else {
			bits |= tcpFINBack
		}
	}
	if forwards && pk.opens() {
		f.tcp.Store(0) // the ports are used again
		return
	}
	if f.tcp.Load()&bits != bits {
		f.tcp.Or(bits)
	}
}

// nextSeq is the sequence number that one end of a TCP connection will use next.
type nextSeq struct {
	known atomic.Bool
	seq   atomic.Uint32
}

// note takes over what a segment says. It may lag behind when two are noted at once: a
// reset that misses is answered by the other end with what would have been right.
func (n *nextSeq) note(pk *packet, restart bool) {
	t := pk.b[pk.l4:]
	end := binary.BigEndian.Uint32(t[4:]) + uint32(len(t)-int(t[12]>>4)*4)
	if pk.flags&(flagSYN|flagFIN) != 0 {
		end++
	}
	if restart || !n.known.Load() || int32(end-n.seq.Load()) > 0 {
		n.seq.Store(end)
		n.known.Store(true)
	}
}

// resetEnds tells both ends of a TCP flow between devices that it is over.
func (p *Plane) resetEnds(f *flow) {
	if f.tcp.Load()&tcpWasReset != 0 {
		return
	}
	for end, to := range []flowKey{{src: f.key.dst, dst: f.key.src}, {src: f.key.src, dst: f.key.dst}} {
		// The reset to an end comes from the other one, with the number it would use next.
		other := &f.next[1-end]
		if other.known.Load() {
			p.link.sendReset(resetPacket(to.src, to.dst, other.seq.Load(), f.next[end].seq.Load(), flagRST|flagACK))
		}
	}
}

// idle is how long f may go without a packet; 0 is for ever.
func (f *flow) idle() time.Duration {
	switch {
	case f.key.proto == protoICMP, f.key.proto == protoICMPv6:
		return pingIdle
	case f.kind == kindPeer && f.key.proto == protoTCP:
		switch bits := f.tcp.Load(); {
		case bits&tcpWasReset != 0:
			return peerTCPReset
		case bits&tcpReplied == 0, bits&tcpFINForward != 0 && bits&tcpFINBack != 0:
			return peerTCPOpen
		}
		return peerTCPIdle
	case f.key.proto == protoTCP:
		return 0 // the stack's keepalives end it
	case f.key.proto == protoUDP && f.stream.Load():
		return relay.UDPStreamIdle
	case f.key.proto == protoUDP:
		return relay.UDPIdle
	}
	return peerOtherIdle
}

// stale says whether f has ended or gone idle by now.
func (f *flow) stale(now time.Time) bool {
	if d := f.idle(); d > 0 && now.UnixNano()-f.seen.Load() > int64(d) {
		return true
	}
	f.mu.Lock()
	ended, drained := f.ended, f.drained
	f.mu.Unlock()
	if ended.IsZero() {
		return false
	}
	return drained == nil || drained() || now.Sub(ended) > lingerLimit
}

// janitorEvery is how often flows are looked over for those that are over.
const janitorEvery = time.Second

// janitor removes flows that have ended or gone idle. Permissions do not wait for it.
func (p *Plane) janitor() {
	t := time.NewTicker(janitorEvery)
	defer t.Stop()
	for {
		select {
		case now := <-t.C:
			for _, f := range p.flows.all() {
				if f.stale(now) {
					p.cut(f)
				}
			}
		case <-p.ctx.Done():
			return
		}
	}
}

// forwarded is the packet as a router passes it on: with a hop less. It is nil when
// there is no hop left.
func forwarded(pk *packet) []byte {
	b := append([]byte(nil), pk.b...)
	if pk.dst.Is4() {
		if b[8] <= 1 {
			return nil
		}
		b[8]--
		// RFC 1624: the checksum grows by what the TTL, a high byte, shrinks.
		sum := uint32(binary.BigEndian.Uint16(b[10:])) + 0x0100
		binary.BigEndian.PutUint16(b[10:], uint16(sum+sum>>16))
		return b
	}
	if b[7] <= 1 {
		return nil
	}
	b[7]--
	return b
}

// icmpErrorAction passes an ICMP error between devices when it is about a flow between
// the two that may live.
func (p *Plane) icmpErrorAction(pk *packet, now time.Time) action {
	q, ok := pk.quoted()
	if !ok || pk.piece != whole || q.src != pk.dst {
		return drop
	}
	for _, k := range []flowKey{q.key(), q.reply()} {
		if f := p.flows.get(k); f != nil && f.kind == kindPeer && p.allowed(f, now) {
			if d := p.devices.get(pk.src); d == f.src || d == f.dst {
				return forward
			}
		}
	}
	return drop
}
