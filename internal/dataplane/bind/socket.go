package bind

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"sync"
	"syscall"

	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
	"golang.org/x/sys/unix"
)

// message is one of a batch; ipv4.Message and ipv6.Message are the same.
type message = ipv6.Message

// packetConn sends and receives batches.
type packetConn interface {
	ReadBatch([]message, int) (int, error)
	WriteBatch([]message, int) (int, error)
}

// offload is what the kernel may do about segments.
type offload struct{ send, receive bool }

// socket is that of one family. Its methods that change it work on nil, too.
type socket struct {
	udp *net.UDPConn
	pc  packetConn
	// gso: the kernel cuts a message into datagrams.
	gso     bool
	plain   plain
	batches sync.Pool // of *batch
}

// bufferSize is for each direction, in bytes: some 40 ms at 1.5 Gbit/s.
const bufferSize = 7 << 20

func openSocket(a netip.AddrPort, mark uint32, want offload) (*socket, error) {
	network := "udp4"
	if a.Addr().Is6() {
		network = "udp6"
	}
	s := &socket{}
	lc := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		var err error
		return errors.Join(c.Control(func(fd uintptr) { err = s.configure(int(fd), a.Addr().Is6(), mark, want) }), err)
	}}
	c, err := lc.ListenPacket(context.Background(), network, a.String())
	if err != nil {
		return nil, err
	}
	s.udp = c.(*net.UDPConn)
	if a.Addr().Is6() {
		s.pc = ipv6.NewPacketConn(s.udp)
	} else {
		s.pc = ipv4.NewPacketConn(s.udp)
	}
	s.batches.New = func() any { return newBatch() }
	return s, nil
}

// configure sets the options of a socket that is not bound yet.
func (s *socket) configure(fd int, v6 bool, mark uint32, want offload) error {
	for _, o := range []int{unix.SO_RCVBUF, unix.SO_SNDBUF, unix.SO_RCVBUFFORCE, unix.SO_SNDBUFFORCE} {
		// The kernel gives what it allows; forcing needs CAP_NET_ADMIN.
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, o, bufferSize)
	}
	type option struct{ level, name, value int }
	must := []option{
		{unix.IPPROTO_IP, unix.IP_PKTINFO, 1},
		{unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_DONT},
	}
	if v6 {
		must = []option{
			{unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 1},
			{unix.IPPROTO_IPV6, unix.IPV6_RECVPKTINFO, 1},
			{unix.IPPROTO_IPV6, unix.IPV6_MTU_DISCOVER, unix.IPV6_PMTUDISC_DONT},
		}
	}
	if mark != 0 {
		must = append(must, option{unix.SOL_SOCKET, unix.SO_MARK, int(mark)})
	}
	for _, o := range must {
		if err := unix.SetsockoptInt(fd, o.level, o.name, o.value); err != nil {
			return err
		}
	}
	if want.send {
		_, err := unix.GetsockoptInt(fd, unix.SOL_UDP, unix.UDP_SEGMENT)
		s.gso = err == nil
	}
	if want.receive {
		_ = unix.SetsockoptInt(fd, unix.SOL_UDP, unix.UDP_GRO, 1) // without it, datagrams come one by one
	}
	return nil
}

func (s *socket) port() uint16 { return s.udp.LocalAddr().(*net.UDPAddr).AddrPort().Port() }

func (s *socket) close() error {
	if s == nil {
		return nil
	}
	return s.udp.Close()
}

func (s *socket) setMark(mark uint32) error {
	if s == nil {
		return nil
	}
	raw, err := s.udp.SyscallConn()
	if err != nil {
		return err
	}
	return errors.Join(raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_MARK, int(mark)) }), err)
}
