package netstack

import (
	"encoding/binary"
	"net/netip"
)

// IP protocol numbers, as IANA assigns them.
const (
	protoICMP   = 1
	protoTCP    = 6
	protoUDP    = 17
	protoFrag6  = 44
	protoICMPv6 = 58
	protoSCTP   = 132
)

// TCP flags.
const (
	flagFIN = 1 << iota
	flagSYN
	flagRST
	flagPSH
	flagACK
)

// fragment says which part of a datagram a packet is.
type fragment uint8

const (
	whole      fragment = iota
	firstPiece          // has the transport header
	laterPiece          // has none
)

// packet is what the filter needs to know of an IP packet. It refers to the bytes
// that it was parsed from and is valid as long as they are.
type packet struct {
	b        []byte // the IP packet, without link padding
	l4       int    // where the transport header begins
	src, dst netip.Addr
	proto    uint8
	piece    fragment
	id       uint32 // the datagram's identification, for fragments
	sport    uint16 // TCP, UDP, SCTP; for ICMP echo the identifier, on the asker's side
	dport    uint16
	flags    uint8 // TCP
	kind     icmpKind
}

// icmpKind sorts ICMP messages of both families.
type icmpKind uint8

const (
	icmpNone icmpKind = iota
	icmpEcho
	icmpEchoReply
	icmpError // refers to an earlier packet
	icmpOther
)

// parse reads the headers of one IP packet. ok is false for everything that is
// malformed or unusual enough to be dropped unseen: IPv4 options, IPv6 extension
// headers other than Fragment, a first fragment too short for its transport
// header (RFC 1858). It does not allocate.
func parse(b []byte) (p packet, ok bool) {
	if len(b) < 1 {
		return p, false
	}
	switch b[0] >> 4 {
	case 4:
		ok = p.parse4(b)
	case 6:
		ok = p.parse6(b)
	}
	if !ok {
		return p, false
	}
	if p.piece == laterPiece {
		// Offset 8 would overwrite TCP's flags in what was judged (RFC 3128).
		return p, true
	}
	return p, p.parseTransport()
}

func (p *packet) parse4(b []byte) bool {
	if len(b) < 20 || b[0]&0x0f != 5 { // options: source routes and worse
		return false
	}
	total := int(binary.BigEndian.Uint16(b[2:]))
	if total < 20 || total > len(b) {
		return false
	}
	p.b, p.l4 = b[:total], 20
	p.src = netip.AddrFrom4([4]byte(b[12:16]))
	p.dst = netip.AddrFrom4([4]byte(b[16:20]))
	p.proto = b[9]
	p.id = uint32(binary.BigEndian.Uint16(b[4:]))
	frag := binary.BigEndian.Uint16(b[6:])
	more, offset := frag&0x2000 != 0, int(frag&0x1fff)*8
	return p.setPiece(more, offset)
}

func (p *packet) parse6(b []byte) bool {
	if len(b) < 40 {
		return false
	}
	total := 40 + int(binary.BigEndian.Uint16(b[4:]))
	if total > len(b) {
		return false
	}
	p.b, p.l4 = b[:total], 40
	p.src = netip.AddrFrom16([16]byte(b[8:24]))
	p.dst = netip.AddrFrom16([16]byte(b[24:40]))
	p.proto = b[6]
	if p.src.Is4In6() || p.dst.Is4In6() {
		return false
	}
	if p.proto != protoFrag6 {
		return true
	}
	if total < 48 {
		return false
	}
	p.l4, p.proto = 48, b[40]
	p.id = binary.BigEndian.Uint32(b[44:])
	frag := binary.BigEndian.Uint16(b[42:])
	return p.setPiece(frag&1 != 0, int(frag&^7))
}

// setPiece classifies a packet by its place in the datagram.
func (p *packet) setPiece(more bool, offset int) bool {
	payload := len(p.b) - p.l4
	switch {
	case offset > 0:
		p.piece = laterPiece
		// No later piece may reach into the transport header that was judged.
		return offset >= 24 && offset+payload <= 65535
	case more:
		p.piece = firstPiece
	}
	return true
}

// parseTransport reads ports, flags and ICMP types.
func (p *packet) parseTransport() bool {
	t := p.b[p.l4:]
	switch p.proto {
	case protoTCP:
		if len(t) < 20 || int(t[12]>>4)*4 < 20 || int(t[12]>>4)*4 > len(t) {
			return false
		}
		p.sport, p.dport = binary.BigEndian.Uint16(t), binary.BigEndian.Uint16(t[2:])
		p.flags = t[13]
	case protoUDP:
		if len(t) < 8 {
			return false
		}
		p.sport, p.dport = binary.BigEndian.Uint16(t), binary.BigEndian.Uint16(t[2:])
	case protoSCTP:
		if len(t) < 12 {
			return false
		}
		p.sport, p.dport = binary.BigEndian.Uint16(t), binary.BigEndian.Uint16(t[2:])
	case protoICMP:
		if len(t) < 8 || !p.src.Is4() {
			return false
		}
		switch t[0] {
		case 8:
			p.kind, p.sport = icmpEcho, binary.BigEndian.Uint16(t[4:])
		case 0:
			p.kind, p.dport = icmpEchoReply, binary.BigEndian.Uint16(t[4:])
		case 3, 11, 12: // unreachable, time exceeded, parameter problem
			p.kind = icmpError
		default:
			p.kind = icmpOther
		}
	case protoICMPv6:
		if len(t) < 8 || p.src.Is4() {
			return false
		}
		switch {
		case t[0] == 128:
			p.kind, p.sport = icmpEcho, binary.BigEndian.Uint16(t[4:])
		case t[0] == 129:
			p.kind, p.dport = icmpEchoReply, binary.BigEndian.Uint16(t[4:])
		case t[0] < 128:
			p.kind = icmpError
		default:
			p.kind = icmpOther
		}
	}
	return true
}

// flowKey names a flow by its first packet.
type flowKey struct {
	src, dst netip.AddrPort
	proto    uint8
}

// key is the flow that p would begin, or continues in the original direction.
func (p *packet) key() flowKey {
	return flowKey{
		src:   netip.AddrPortFrom(p.src, p.sport),
		dst:   netip.AddrPortFrom(p.dst, p.dport),
		proto: p.proto,
	}
}

// reply is the key of the flow that p answers.
func (p *packet) reply() flowKey {
	return flowKey{
		src:   netip.AddrPortFrom(p.dst, p.dport),
		dst:   netip.AddrPortFrom(p.src, p.sport),
		proto: p.proto,
	}
}

// opens says whether p may begin a flow: a TCP packet that is not a SYN, an ICMP
// reply and an ICMP error may not.
func (p *packet) opens() bool {
	switch p.proto {
	case protoTCP:
		return p.flags&(flagSYN|flagACK|flagRST|flagFIN) == flagSYN
	case protoICMP, protoICMPv6:
		return p.kind == icmpEcho
	}
	return true
}

// quoted is the packet that an ICMP error refers to; ok is false if it cannot be read.
// A quotation is often cut off, so only ports are required.
func (p *packet) quoted() (q packet, ok bool) {
	b := p.b[p.l4+8:]
	switch {
	case len(b) >= 28 && b[0] == 0x45:
		q.src, q.dst = netip.AddrFrom4([4]byte(b[12:16])), netip.AddrFrom4([4]byte(b[16:20]))
		q.proto, q.l4 = b[9], 20
		if binary.BigEndian.Uint16(b[6:])&0x1fff != 0 {
			return q, false
		}
	case len(b) >= 48 && b[0]>>4 == 6:
		q.src, q.dst = netip.AddrFrom16([16]byte(b[8:24])), netip.AddrFrom16([16]byte(b[24:40]))
		q.proto, q.l4 = b[6], 40
	default:
		return q, false
	}
	t := b[q.l4:]
	switch q.proto {
	case protoTCP, protoUDP, protoSCTP:
		q.sport, q.dport = binary.BigEndian.Uint16(t), binary.BigEndian.Uint16(t[2:])
	case protoICMP, protoICMPv6:
		switch t[0] {
		case 8, 128:
			q.kind, q.sport = icmpEcho, binary.BigEndian.Uint16(t[4:])
		case 0, 129:
			q.kind, q.dport = icmpEchoReply, binary.BigEndian.Uint16(t[4:])
		default:
			return q, false
		}
	default:
		return q, false
	}
	return q, true
}
