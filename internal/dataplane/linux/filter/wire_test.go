package filter

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"vpnd/acl/rules"
	"vpnd/internal/dataplane/linux/run"
)

// wire is a gateway whose two sides are in the test's hands: TUN devices stand for the
// tunnel ("vt") and for everything outside ("lt0"), so that packets with any source can be
// put in, and what comes out is seen whole. What is addressed to the gateway itself is
// seen by raw sockets, which the kernel serves behind the input hook.
type wire struct {
	t               testing.TB
	tunnel, outside int // of the TUN devices
	raw             []rawSocket
	send4, send6    int             // for what the gateway itself sends
	next            uint32          // id
	port            uint16          // of the next line
	toPortal        map[uint32]bool // the ids of packets that are addressed to the portal
	arrived         map[uint32]bool // and of those that have come out
	resets          int             // TCP resets sent into the tunnel
}

type rawSocket struct {
	fd    int
	proto uint8
	is4   bool
}

func newWire(t testing.TB, w way) *wire {
	t.Helper()
	needNamespaces(t)
	x := &wire{t: t, toPortal: make(map[uint32]bool), arrived: make(map[uint32]bool), next: 1 << 20}
	own := func(fd int, err error) int {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = unix.Close(fd) })
		return fd
	}
	// The flows of one wire have no ends that could be told of their cut.
	t.Cleanup(func() { sh(t, "conntrack -F 2>/dev/null") })
	x.tunnel, x.outside = own(openTUN("vt")), own(openTUN("lt0"))
	sh(t, `ip link set vt txqueuelen 10000 up; ip link set lt0 txqueuelen 10000 up
ip addr add 192.0.2.1/32 dev lt0; ip -6 addr add 2001:db8:ffff::1/128 dev lt0 nodad
ip route add default dev lt0; ip -6 route add default dev lt0
echo 1 >/proc/sys/net/ipv4/ip_forward; echo 1 >/proc/sys/net/ipv6/conf/all/forwarding
for c in all default vt lt0; do echo 0 >/proc/sys/net/ipv4/conf/$c/rp_filter; done`)
	for i, a := range w.gateway.Addrs {
		sh(t, "ip addr add "+netip.PrefixFrom(a, w.gateway.Network[i].Bits()).String()+" dev vt"+map[bool]string{false: " nodad"}[a.Is4()])
	}
	for _, proto := range []uint8{1, 6, 17, 47, 50, 132} {
		x.raw = append(x.raw, rawSocket{own(unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, int(proto))), proto, true})
		if proto == 1 {
			proto = unix.IPPROTO_ICMPV6
		}
		x.raw = append(x.raw, rawSocket{own(unix.Socket(unix.AF_INET6, unix.SOCK_RAW|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, int(proto))), proto, false})
	}
	x.send4 = own(unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW))
	if err := unix.SetsockoptInt(x.send4, unix.SOL_SOCKET, unix.SO_BROADCAST, 1); err != nil {
		t.Fatal(err)
	}
	x.send6 = own(unix.Socket(unix.AF_INET6, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW))
	return x
}

func openTUN(name string) (int, error) {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	r, err := unix.NewIfreq(name)
	if err == nil {
		r.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI)
		err = unix.IoctlIfreq(fd, unix.TUNSETIFF, r)
	}
	if err != nil {
		_ = unix.Close(fd)
	}
	return fd, err
}

// put sends a packet from where its source is, and returns its id. The kernel has dealt
// with it when the write returns.
func (x *wire) put(w way, p rules.Packet) uint32 {
	x.t.Helper()
	x.next++
	x.toPortal[x.next] = w.own(p.Dst) && p.Proto == unix.IPPROTO_TCP && p.DstPort == webPort
	b := wirePacket(p, x.next)
	var err error
	switch {
	case w.own(p.Src) && p.Src.Is4():
		err = unix.Sendto(x.send4, b, 0, &unix.SockaddrInet4{Addr: p.Dst.As4()})
	case w.own(p.Src):
		err = unix.Sendto(x.send6, b, 0, &unix.SockaddrInet6{Addr: p.Dst.As16()})
	case w.inTunnel(p.Src):
		_, err = unix.Write(x.tunnel, b)
	default:
		_, err = unix.Write(x.outside, b)
	}
	if err != nil && !(w.own(p.Src) && errors.Is(err, unix.EPERM)) { // refused on its way out
		x.t.Fatalf("send %+v: %v", p, err)
	}
	return x.next
}

// look notes what has come out, until done says so or d is over.
func (x *wire) look(d time.Duration, done func() bool) {
	buf := make([]byte, 4096)
	for end := time.Now().Add(d); ; {
		for _, fd := range []int{x.tunnel, x.outside} {
			for {
				n, err := unix.Read(fd, buf)
				if err != nil {
					break
				}
				if b := buf[:n]; n >= 20 && b[0]>>4 == 4 {
					x.note(b[9], b[20:], true)
				} else if n >= 40 {
					x.note(b[6], b[40:], true)
				}
			}
		}
		for _, s := range x.raw {
			for {
				n, _, err := unix.Recvfrom(s.fd, buf, 0)
				if err != nil {
					break
				}
				b := buf[:n]
				if s.is4 && n >= 20 {
					b = b[20:]
				}
				x.note(s.proto, b, false)
			}
		}
		if done() || time.Now().After(end) {
			return
		}
		time.Sleep(time.Millisecond)
	}
}

// note reads the id of one of our packets. What the portal has caught has not arrived.
func (x *wire) note(proto uint8, b []byte, forwarded bool) {
	if forwarded && proto == unix.IPPROTO_TCP && len(b) >= 20 && b[13]&tcpRST != 0 {
		x.resets++
	}
	id, ok := wireID(proto, b)
	if !ok {
		return
	}
	port := uint16(0)
	if hasPorts(proto) {
		port = binary.BigEndian.Uint16(b[2:])
	}
	if !forwarded && proto == unix.IPPROTO_TCP && port == portalPort && !x.toPortal[id] {
		return
	}
	x.arrived[id] = true
}

// wireID finds the id that wirePacket has put into a transport header and what follows.
func wireID(proto uint8, b []byte) (uint32, bool) {
	at := 4
	switch proto {
	case unix.IPPROTO_TCP:
		if len(b) < 20 {
			return 0, false
		}
		if b[13] != tcpSYN { // what follows the header; a refusal has nothing there
			at = 20
		}
	case unix.IPPROTO_ICMP, unix.IPPROTO_ICMPV6:
		if len(b) < 8 || b[0] != run.Echo4 && b[0] != run.Echo6 {
			return 0, false
		}
	case unix.IPPROTO_UDP:
		at = 8
	case unix.IPPROTO_SCTP:
		at = 16
	}
	if len(b) < at+4 {
		return 0, false
	}
	return binary.BigEndian.Uint32(b[at:]), true
}

// wirePacket is the first packet of a flow, bytes and checksums and all.
func wirePacket(p rules.Packet, id uint32) []byte {
	sport := uint16(10000 + id%50000)
	id32 := binary.BigEndian.AppendUint32(nil, id)
	ports := binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint16(nil, sport), p.DstPort)
	var l4 []byte
	sum := -1 // where the checksum goes
	switch p.Proto {
	case unix.IPPROTO_TCP:
		l4, sum = append(append(ports, id32...), 0, 0, 0, 0, 5<<4, tcpSYN, 4, 0, 0, 0, 0, 0), 16
	case unix.IPPROTO_UDP:
		l4, sum = append(append(ports, 0, 12, 0, 0), id32...), 6
	case unix.IPPROTO_ICMP:
		l4, sum = append([]byte{run.Echo4, 0, 0, 0}, id32...), 2
	case unix.IPPROTO_ICMPV6:
		l4, sum = append([]byte{run.Echo6, 0, 0, 0}, id32...), 2
	case unix.IPPROTO_SCTP: // an INIT chunk, RFC 9260
		l4 = append(append(ports, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 20), append(id32, 0, 0, 16, 0, 0, 1, 0, 1, 0, 0, 0, 1)...)
		binary.LittleEndian.PutUint32(l4[8:], crc32.Checksum(l4, crc32.MakeTable(crc32.Castagnoli)))
	case unix.IPPROTO_GRE:
		l4 = append([]byte{0, 0, 8, 0}, id32...)
	default:
		l4 = append([]byte{0, 0, 0, 1}, id32...)
	}
	return ipPacket(p.Src, p.Dst, p.Proto, l4, sum)
}

// TCP flags.
const (
	tcpSYN = 0x02
	tcpRST = 0x04
	tcpPSH = 0x08
	tcpACK = 0x10
)

// tcpSegment is a segment without options.
func tcpSegment(src, dst netip.AddrPort, flags byte, seq, ack uint32, payload []byte) []byte {
	h := binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint16(nil, src.Port()), dst.Port())
	h = binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(h, seq), ack)
	h = append(h, 5<<4, flags, 0x40, 0, 0, 0, 0, 0)
	return ipPacket(src.Addr(), dst.Addr(), unix.IPPROTO_TCP, append(h, payload...), 16)
}

func udpDatagram(src, dst netip.AddrPort, payload []byte) []byte {
	h := binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint16(nil, src.Port()), dst.Port())
	h = append(h, 0, byte(8+len(payload)), 0, 0)
	return ipPacket(src.Addr(), dst.Addr(), unix.IPPROTO_UDP, append(h, payload...), 6)
}

// ipPacket puts an IP header before l4, whose checksum goes to sum; -1 if it has none.
func ipPacket(src, dst netip.Addr, proto uint8, l4 []byte, sum int) []byte {
	if sum >= 0 {
		var pseudo []byte
		if proto != unix.IPPROTO_ICMP {
			pseudo = append(append(pseudo, src.AsSlice()...), dst.AsSlice()...)
			pseudo = append(pseudo, 0, proto, 0, byte(len(l4)))
		}
		binary.BigEndian.PutUint16(l4[sum:], checksum(append(pseudo, l4...)))
	}
	if dst.Is4() {
		h := []byte{0x45, 0, 0, byte(20 + len(l4)), 0, 0, 0x40, 0, 64, proto, 0, 0}
		h = append(append(h, src.AsSlice()...), dst.AsSlice()...)
		binary.BigEndian.PutUint16(h[10:], checksum(h))
		return append(h, l4...)
	}
	h := []byte{0x60, 0, 0, 0, 0, byte(len(l4)), proto, 64}
	return append(append(append(h, src.AsSlice()...), dst.AsSlice()...), l4...)
}

// checksum is that of RFC 1071.
func checksum(b []byte) uint16 {
	var sum uint32
	for i := 0; i+1 < len(b); i += 2 {
		sum += uint32(b[i])<<8 | uint32(b[i+1])
	}
	if len(b)%2 == 1 {
		sum += uint32(b[len(b)-1]) << 8
	}
	for sum>>16 != 0 {
		sum = sum&0xffff + sum>>16
	}
	return ^uint16(sum)
}
