package netstack

import (
	"encoding/binary"
	"net/netip"
	"sync"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip/checksum"
)

// ICMP codes of "destination unreachable" (type 3; ICMPv6 type 1).
const (
	prohibited4  = 13 // communication administratively prohibited, RFC 1812
	prohibited6  = 1  // the same, RFC 4443
	noHost4      = 1
	noHost6      = 3 // address unreachable
	noPort4      = 3
	noPort6      = 4
	icmpQuote4   = 576 - 28  // of the packet that is answered: RFC 1812
	icmpQuote6   = 1280 - 48 // RFC 4443
	defaultTTL   = 64
	ipv6MinimumH = 40
)

// refuse answers a packet that may not pass, if its device has answers left.
func (p *Plane) refuse(pk *packet) {
	if pk.kind != icmpNone && pk.kind != icmpEcho || pk.proto == protoTCP && pk.flags&flagRST != 0 || pk.piece == laterPiece {
		return
	}
	src := p.devices.get(pk.src)
	if src == nil {
		return
	}
	allowed := src.answers.Allow()
	switch {
	case pk.proto == protoTCP && allowed:
		p.link.send(tcpReset(pk))
		return
	case pk.proto == protoTCP:
		src.late.add(pk.key(), tcpReset(pk), p.link.send)
		return
	case !allowed:
		return
	}
	p.link.send(p.unreachablePacket(pk.b, pk.src, pk.dst, prohibited4, prohibited6))
}

// lateResets are those that were over the limit. Of each flow the last is sent a little
// later: a receiver whose download was cut acknowledges what is on its way, a burst over
// any limit, and then waits in silence; only the answer to its last segment ends that.
type lateResets struct {
	mu     sync.Mutex
	resets map[flowKey][]byte
}

const (
	latePause = 200 * time.Millisecond
	lateFlows = 64 // of one device within a pause
)

func (l *lateResets) add(k flowKey, reset []byte, send func([]byte)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, ok := l.resets[k]; !ok && len(l.resets) >= lateFlows {
		return
	}
	if l.resets == nil {
		l.resets = make(map[flowKey][]byte)
		time.AfterFunc(latePause, func() {
			l.mu.Lock()
			resets := l.resets
			l.resets = nil
			l.mu.Unlock()
			for _, r := range resets {
				send(r)
			}
		})
	}
	l.resets[k] = reset
}

// unreachable tells the device that began f that nobody answers at its other end.
func (p *Plane) unreachable(f *flow) {
	if !f.src.answers.Allow() {
		return
	}
	code4, code6 := byte(noHost4), byte(noHost6)
	if f.key.proto == protoUDP {
		code4, code6 = noPort4, noPort6
	}
	p.link.send(p.aboutFlow(f.key, f.isn, code4, code6))
}

// tellUDP tells the devices at the ends of f, which was cut, that it is prohibited now: one that
// only waits learns it by nothing else. A resource's kernel answers by itself that nobody is at
// the port any more. A flow that ended idle has nobody to tell, and TCP has its resets.
func (p *Plane) tellUDP(f *flow) {
	if f.key.proto != protoUDP {
		return
	}
	p.link.sendReset(p.aboutFlow(f.key, 0, prohibited4, prohibited6))
	if f.kind == kindPeer {
		p.link.sendReset(p.aboutFlow(flowKey{proto: protoUDP, src: f.key.dst, dst: f.key.src}, 0, prohibited4, prohibited6))
	}
}

// aboutFlow is ICMP "destination unreachable" to the beginner of the flow k. The quotation needs
// the addresses, the ports and, of TCP, the sequence number seq.
func (p *Plane) aboutFlow(k flowKey, seq uint32, code4, code6 byte) []byte {
	t := make([]byte, 8)
	binary.BigEndian.PutUint16(t, k.src.Port())
	binary.BigEndian.PutUint16(t[2:], k.dst.Port())
	if k.proto == protoUDP {
		binary.BigEndian.PutUint16(t[4:], 8) // its length
	} else {
		binary.BigEndian.PutUint32(t[4:], seq)
	}
	b := ipPacket(k.src.Addr(), k.dst.Addr(), k.proto, t)
	return p.unreachablePacket(b, k.src.Addr(), k.dst.Addr(), code4, code6)
}

// unreachablePacket is ICMP "destination unreachable" about the packet b.
func (p *Plane) unreachablePacket(b []byte, to, about netip.Addr, code4, code6 byte) []byte {
	from := about
	for _, a := range p.near.Load().Addrs {
		if a.Is4() == to.Is4() {
			from = a
			break
		}
	}
	if to.Is4() {
		m := make([]byte, 8, 8+icmpQuote4)
		m[0], m[1] = 3, code4
		m = append(m, b[:min(len(b), icmpQuote4)]...)
		binary.BigEndian.PutUint16(m[2:], ^checksum.Checksum(m, 0))
		return ipPacket(from, to, protoICMP, m)
	}
	m := make([]byte, 8, 8+icmpQuote6)
	m[0], m[1] = 1, code6
	m = append(m, b[:min(len(b), icmpQuote6)]...)
	binary.BigEndian.PutUint16(m[2:], transportSum(from, to, protoICMPv6, m))
	return ipPacket(from, to, protoICMPv6, m)
}

// tcpReset is the answer of RFC 9293, 3.10.7.1, to a segment for no connection.
func tcpReset(pk *packet) []byte {
	t := pk.b[pk.l4:]
	from, to := netip.AddrPortFrom(pk.dst, pk.dport), netip.AddrPortFrom(pk.src, pk.sport)
	if pk.flags&flagACK != 0 {
		return resetPacket(from, to, binary.BigEndian.Uint32(t[8:]), 0, flagRST)
	}
	n := uint32(len(t) - int(t[12]>>4)*4)
	if pk.flags&flagSYN != 0 {
		n++
	}
	if pk.flags&flagFIN != 0 {
		n++
	}
	return resetPacket(from, to, 0, binary.BigEndian.Uint32(t[4:])+n, flagRST|flagACK)
}

// resetPacket is a TCP reset.
func resetPacket(from, to netip.AddrPort, seq, ack uint32, flags byte) []byte {
	r := make([]byte, 20)
	binary.BigEndian.PutUint16(r, from.Port())
	binary.BigEndian.PutUint16(r[2:], to.Port())
	binary.BigEndian.PutUint32(r[4:], seq)
	binary.BigEndian.PutUint32(r[8:], ack)
	r[12], r[13] = 5<<4, flags
	binary.BigEndian.PutUint16(r[16:], transportSum(from.Addr(), to.Addr(), protoTCP, r))
	return ipPacket(from.Addr(), to.Addr(), protoTCP, r)
}

// ipPacket puts an IP header before a payload.
func ipPacket(src, dst netip.Addr, proto uint8, payload []byte) []byte {
	if src.Is4() {
		b := make([]byte, 20, 20+len(payload))
		b[0] = 0x45
		binary.BigEndian.PutUint16(b[2:], uint16(20+len(payload)))
		b[8], b[9] = defaultTTL, proto
		s, d := src.As4(), dst.As4()
		copy(b[12:], s[:])
		copy(b[16:], d[:])
		binary.BigEndian.PutUint16(b[10:], ^checksum.Checksum(b, 0))
		return append(b, payload...)
	}
	b := make([]byte, ipv6MinimumH, ipv6MinimumH+len(payload))
	b[0] = 6 << 4
	binary.BigEndian.PutUint16(b[4:], uint16(len(payload)))
	b[6], b[7] = proto, defaultTTL
	s, d := src.As16(), dst.As16()
	copy(b[8:], s[:])
	copy(b[24:], d[:])
	return append(b, payload...)
}

// transportSum is the checksum of a transport payload whose checksum field is zero.
func transportSum(src, dst netip.Addr, proto uint8, t []byte) uint16 {
	sum := checksum.Checksum(src.AsSlice(), 0)
	sum = checksum.Checksum(dst.AsSlice(), sum)
	sum = checksum.Combine(sum, uint16(proto))
	sum = checksum.Combine(sum, uint16(len(t)))
	return ^checksum.Checksum(t, sum)
}

// echoReply is the answer to an echo request.
func echoReply(pk *packet) []byte {
	return echoFrom(pk.dst, pk.src, append([]byte(nil), pk.b[pk.l4:]...))
}

// echoFrom makes the echo message m, which it changes, a reply from src to dst.
func echoFrom(src, dst netip.Addr, m []byte) []byte {
	m[2], m[3] = 0, 0
	if src.Is4() {
		m[0] = 0
		binary.BigEndian.PutUint16(m[2:], ^checksum.Checksum(m, 0))
		return ipPacket(src, dst, protoICMP, m)
	}
	m[0] = 129
	binary.BigEndian.PutUint16(m[2:], transportSum(src, dst, protoICMPv6, m))
	return ipPacket(src, dst, protoICMPv6, m)
}
