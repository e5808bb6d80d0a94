package netstack

import (
	"encoding/binary"
	"net"
	"net/netip"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// pingSupport says for which families this process may open a ping socket: the sysctl
// net.ipv4.ping_group_range must contain one of its groups (for IPv6, too).
type pingSupport struct{ v4, v6 bool }

func probePing() pingSupport {
	var s pingSupport
	for _, v6 := range []bool{false, true} {
		fd, err := pingSocket(v6)
		if err != nil {
			continue
		}
		unix.Close(fd)
		if v6 {
			s.v6 = true
		} else {
			s.v4 = true
		}
	}
	return s
}

func pingSocket(v6 bool) (int, error) {
	family, proto := unix.AF_INET, unix.IPPROTO_ICMP
	if v6 {
		family, proto = unix.AF_INET6, unix.IPPROTO_ICMPV6
	}
	return unix.Socket(family, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, proto)
}

// pings says whether echoes to a can be carried.
func (p *Plane) pings(a netip.Addr) bool {
	return a.Is4() && p.canPing.v4 || a.Is6() && p.canPing.v6
}

// dialPing opens a ping socket connected to a.
func dialPing(a netip.Addr) (net.Conn, error) {
	fd, err := pingSocket(a.Is6())
	if err != nil {
		return nil, err
	}
	var sa unix.Sockaddr = &unix.SockaddrInet6{Addr: a.As16()}
	if a.Is4() {
		sa = &unix.SockaddrInet4{Addr: a.As4()}
	}
	if err := unix.Connect(fd, sa); err != nil {
		unix.Close(fd)
		return nil, os.NewSyscallError("connect", err)
	}
	file := os.NewFile(uintptr(fd), "ping")
	defer file.Close()
	return net.FileConn(file) // has a copy of the descriptor
}

// maxPing is the largest echo that is carried, in bytes of ICMP: replies are not fragmented.
func (p *Plane) maxPing() int { return int(p.link.mtu.Load()) - 48 }

// ping carries an echo request of flow f to its resource. The kernel puts its own
// identifier on the wire; the reply gets the device's again.
func (p *Plane) ping(f *flow, pk *packet) {
	m := append([]byte(nil), pk.b[pk.l4:]...)
	if len(m) > p.maxPing() {
		return
	}
	f.mu.Lock()
	conn := f.ping
	if conn == nil && !f.dead.Load() {
		c, err := dialPing(f.key.dst.Addr())
		if err != nil {
			f.mu.Unlock()
			p.unreachable(f)
			p.cut(f)
			return
		}
		conn, f.ping = c, c
		f.cutters = append(f.cutters, func() { c.Close() })
		go p.pong(f, c)
	}
	f.mu.Unlock()
	if conn != nil {
		conn.Write(m) // the kernel sets identifier and checksum
	}
}

// pong carries the replies back.
func (p *Plane) pong(f *flow, c net.Conn) {
	defer p.cut(f)
	b := make([]byte, 64<<10)
	for {
		n, err := c.Read(b)
		if err != nil {
			return
		}
		if n < 8 || n > p.maxPing() || !p.allowed(f, time.Now()) {
			continue
		}
		m := append([]byte(nil), b[:n]...)
		binary.BigEndian.PutUint16(m[4:], f.key.src.Port())
		p.link.send(echoFrom(f.key.dst.Addr(), f.key.src.Addr(), m))
	}
}
