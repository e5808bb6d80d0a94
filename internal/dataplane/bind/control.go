package bind

import (
	"encoding/binary"
	"net/netip"
	"unsafe"

	"golang.org/x/sys/unix"
)

// controlSize has room for the control messages of one message, either way: an address
// and the size of its segments.
var controlSize = unix.CmsgSpace(unix.SizeofInet6Pktinfo) + unix.CmsgSpace(4)

// appendControl appends a control message, as cmsg(3) has them, to b, which has room.
func appendControl(b []byte, level, kind int32, data []byte) []byte {
	at := len(b)
	b = b[:at+unix.CmsgSpace(len(data))]
	clear(b[at:])
	h := (*unix.Cmsghdr)(unsafe.Pointer(&b[at]))
	h.Level, h.Type = level, kind
	h.SetLen(unix.CmsgLen(len(data)))
	copy(b[at+unix.CmsgLen(0):], data)
	return b
}

// appendSource makes a message leave from src. The interface is left to routing: named, it
// would be taken even where no route leads to the peer by it.
func appendSource(b []byte, src netip.Addr, ifindex uint32) []byte {
	if src.Is4() {
		var info [unix.SizeofInet4Pktinfo]byte // ifindex, spec_dst, addr
		a := src.As4()
		copy(info[4:], a[:])
		return appendControl(b, unix.IPPROTO_IP, unix.IP_PKTINFO, info[:])
	}
	var info [unix.SizeofInet6Pktinfo]byte // addr, ifindex
	a := src.As16()
	copy(info[:], a[:])
	binary.NativeEndian.PutUint32(info[16:], ifindex)
	return appendControl(b, unix.IPPROTO_IPV6, unix.IPV6_PKTINFO, info[:])
}

// appendSegment makes the kernel cut a message into datagrams of size bytes.
func appendSegment(b []byte, size int) []byte {
	var n [2]byte
	binary.NativeEndian.PutUint16(n[:], uint16(size))
	return appendControl(b, unix.SOL_UDP, unix.UDP_SEGMENT, n[:])
}

// arrival is what the kernel tells about a message: the address that it came to, and the
// size of the datagrams that it was put together from; 0: it is one.
type arrival struct {
	to      netip.Addr
	ifindex uint32
	segment int
}

// parseControl reads control messages. What it cannot read it leaves out.
func parseControl(b []byte) arrival {
	var a arrival
	for len(b) >= unix.SizeofCmsghdr {
		h, data, rest, err := unix.ParseOneSocketControlMessage(b)
		if err != nil {
			return a
		}
		b = rest
		switch {
		case h.Level == unix.IPPROTO_IP && h.Type == unix.IP_PKTINFO && len(data) >= unix.SizeofInet4Pktinfo:
			a.ifindex = binary.NativeEndian.Uint32(data)
			a.to = netip.AddrFrom4([4]byte(data[4:8]))
		case h.Level == unix.IPPROTO_IPV6 && h.Type == unix.IPV6_PKTINFO && len(data) >= unix.SizeofInet6Pktinfo:
			a.to = netip.AddrFrom16([16]byte(data)).Unmap()
			a.ifindex = binary.NativeEndian.Uint32(data[16:])
		case h.Level == unix.SOL_UDP && h.Type == unix.UDP_GRO && len(data) >= 2:
			a.segment = int(binary.NativeEndian.Uint16(data)) // the kernel writes an int, of which older ones fill two bytes
			if len(data) >= 4 {
				a.segment = int(binary.NativeEndian.Uint32(data))
			}
		}
	}
	return a
}
