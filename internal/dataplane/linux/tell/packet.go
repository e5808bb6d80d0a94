package tell

import (
	"encoding/binary"
	"net/netip"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/tcpip/checksum"
)

// TCP flags (RFC 9293, 3.1).
const (
	flagSYN = 0x02
	flagACK = 0x10
)

const hops = 64 // TTL, hop limit

// segment is a TCP segment without data whose numbers are made up: an end that has the
// connection answers a SYN with the right ones, whatever it is told (RFC 5961, 4).
func segment(from, to netip.AddrPort, flags byte) []byte {
	t := make([]byte, 20)
	binary.BigEndian.PutUint16(t, from.Port())
	binary.BigEndian.PutUint16(t[2:], to.Port())
	binary.BigEndian.PutUint32(t[4:], 1)
	if flags&flagACK != 0 {
		binary.BigEndian.PutUint32(t[8:], 1)
	}
	t[12], t[13] = 5<<4, flags
	binary.BigEndian.PutUint16(t[14:], 1024) // window
	binary.BigEndian.PutUint16(t[16:], transportSum(from.Addr(), to.Addr(), unix.IPPROTO_TCP, t))
	return packet(from.Addr(), to.Addr(), unix.IPPROTO_TCP, t)
}

// prohibited is the ICMP error by which to learns that its UDP packets to from are
// prohibited (RFC 1812, 5.2.7.1; RFC 4443, 3.1): it quotes the headers of one.
func prohibited(from, to netip.AddrPort) []byte {
	u := make([]byte, 8)
	binary.BigEndian.PutUint16(u, to.Port())
	binary.BigEndian.PutUint16(u[2:], from.Port())
	binary.BigEndian.PutUint16(u[4:], 8)
	quote := packet(to.Addr(), from.Addr(), unix.IPPROTO_UDP, u)
	m := make([]byte, 8, 8+len(quote))
	if to.Addr().Is4() {
		m[0], m[1] = 3, 13
		m = append(m, quote...)
		binary.BigEndian.PutUint16(m[2:], ^checksum.Checksum(m, 0))
		return packet(from.Addr(), to.Addr(), unix.IPPROTO_ICMP, m)
	}
	m[0], m[1] = 1, 1
	m = append(m, quote...)
	binary.BigEndian.PutUint16(m[2:], transportSum(from.Addr(), to.Addr(), unix.IPPROTO_ICMPV6, m))
	return packet(from.Addr(), to.Addr(), unix.IPPROTO_ICMPV6, m)
}

// packet puts an IP header before a payload. The kernel writes IPv4's identification.
func packet(from, to netip.Addr, proto byte, payload []byte) []byte {
	if to.Is4() {
		b := make([]byte, 20, 20+len(payload))
		b[0] = 0x45
		binary.BigEndian.PutUint16(b[2:], uint16(20+len(payload)))
		b[8], b[9] = hops, proto
		copy(b[12:], from.AsSlice())
		copy(b[16:], to.AsSlice())
		binary.BigEndian.PutUint16(b[10:], ^checksum.Checksum(b, 0))
		return append(b, payload...)
	}
	b := make([]byte, 40, 40+len(payload))
	b[0] = 6 << 4
	binary.BigEndian.PutUint16(b[4:], uint16(len(payload)))
	b[6], b[7] = proto, hops
	copy(b[8:], from.AsSlice())
	copy(b[24:], to.AsSlice())
	return append(b, payload...)
}

// transportSum is the checksum of a transport payload whose checksum field is zero.
func transportSum(from, to netip.Addr, proto byte, t []byte) uint16 {
	sum := checksum.Checksum(from.AsSlice(), 0)
	sum = checksum.Checksum(to.AsSlice(), sum)
	sum = checksum.Combine(sum, uint16(proto))
	sum = checksum.Combine(sum, uint16(len(t)))
	return ^checksum.Checksum(t, sum)
}
