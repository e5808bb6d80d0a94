package linux

import (
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"

	"github.com/ti-mo/conntrack"
	"golang.org/x/sys/unix"

	"vpnd/acl/language"
	"vpnd/internal/dataplane"
	"vpnd/internal/dataplane/relay"
)

// relayMost is how many connections, and how many flows of datagrams, the relay carries at
// once unless it is told.
const relayMost = 10_240

// relayed are the relay's two ports, which only what the packet filter leads there reaches.
// Their sockets are bound to the tunnel's interface, like the portal's, and there while
// something is published.
type relayed struct {
	tcp *listener
	udp *datagrams
}

func newRelayed(c dataplane.Config) (*relayed, error) {
	tcp, err := newListener(c.Interface, "the relay of published resources", c.Log)
	if err != nil {
		return nil, err
	}
	udp, err := newDatagrams(c.Interface)
	if err != nil {
		return nil, errors.Join(err, tcp.release())
	}
	return &relayed{tcp, udp}, nil
}

// start begins to relay; it ends with ctx.
func (p *Plane) startRelay(ctx context.Context) error {
	if err := p.relayed.tcp.open(); err != nil {
		return err
	}
	most := cmp.Or(p.c.Relay, relayMost)
	tcp := &relay.TCP{Listener: p.relayed.tcp, Find: askedFor, Open: p.open("tcp", language.ProtoTCP), Most: most}
	go func() { _ = tcp.Serve(ctx) }()
	p.relayed.udp.serve = func(c *net.UDPConn) {
		find := &lookup{port: p.relayed.udp.port, gateway: p.dialer().Gateway}
		defer find.close()
		udp := &relay.UDP{Conn: c, Find: find.askedFor, Open: p.open("udp", language.ProtoUDP), Most: most}
		p.relayed.udp.flows.Store(udp)
		_ = udp.Serve(ctx)
	}
	return nil
}

// bindRelay makes the relay's sockets on the interface, if something is published.
func (p *Plane) bindRelay() error {
	if p.link == nil || !p.services.any() {
		return nil
	}
	if !p.relays {
		if err := p.startRelay(p.ctx); err != nil {
			return err
		}
		p.relays = true
	}
	if err := p.relayed.tcp.bind(p.link.index, p.want.gateway); err != nil {
		return err
	}
	return p.relayed.udp.bind(p.link.index)
}

func (r *relayed) release() error { return errors.Join(r.tcp.release(), r.udp.release()) }

// datagrams is the UDP socket of the relay.
type datagrams struct {
	iface string
	port  uint16
	hold  int // keeps the port ours; -1 when closed
	serve func(*net.UDPConn)
	flows atomic.Pointer[relay.UDP] // of the socket

	mu    sync.Mutex
	cur   *net.UDPConn
	index int
}

// newDatagrams picks the port, and keeps it by a socket on the loopback interface: one that
// others could share it with (SO_REUSEADDR) is what they could take it over by.
func newDatagrams(iface string) (*datagrams, error) {
	fail := func(err error) (*datagrams, error) {
		return nil, fmt.Errorf("picking a UDP port for the relay of published resources: %w", err)
	}
	fd, err := unix.Socket(unix.AF_INET6, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	var any unix.Sockaddr = &unix.SockaddrInet6{}
	if errors.Is(err, unix.EAFNOSUPPORT) {
		fd, err = unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		any = &unix.SockaddrInet4{}
	}
	if err != nil {
		return fail(err)
	}
	if err = unix.SetsockoptString(fd, unix.SOL_SOCKET, unix.SO_BINDTODEVICE, "lo"); err == nil {
		err = unix.Bind(fd, any)
	}
	var sa unix.Sockaddr
	if err == nil {
		sa, err = unix.Getsockname(fd)
	}
	if err != nil {
		unix.Close(fd)
		return fail(err)
	}
	d := &datagrams{iface: iface, hold: fd}
	switch sa := sa.(type) {
	case *unix.SockaddrInet6:
		d.port = uint16(sa.Port)
	case *unix.SockaddrInet4:
		d.port = uint16(sa.Port)
	}
	return d, nil
}

// bind makes the socket on the interface of this index, if it is not there already. One on an
// interface that is gone keeps the port from nobody but others.
func (d *datagrams) bind(index int) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.cur != nil && d.index == index {
		return nil
	}
	lc := boundTo(d.iface)
	c, err := lc.ListenPacket(context.Background(), "udp", ":"+strconv.Itoa(int(d.port)))
	if err != nil {
		return fmt.Errorf("listening for the relay of published resources on %s: %w", d.iface, err)
	}
	if d.cur != nil {
		d.cur.Close()
	}
	d.cur, d.index = c.(*net.UDPConn), index
	go d.serve(d.cur)
	return nil
}

// cut ends the flow of a client.
func (d *datagrams) cut(client netip.AddrPort) {
	if u := d.flows.Load(); u != nil {
		u.Cut(client)
	}
}

func (d *datagrams) release() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.hold >= 0 {
		unix.Close(d.hold)
		d.hold = -1
	}
	if d.cur == nil {
		return nil
	}
	err := d.cur.Close()
	d.cur = nil
	if errors.Is(err, net.ErrClosed) { // by the relay, as the plane has stopped
		return nil
	}
	return err
}

// originalDst is SO_ORIGINAL_DST and IP6T_SO_ORIGINAL_DST (linux/netfilter_ipv4.h, …_ipv6/ip6_tables.h).
const originalDst = 80

// askedFor is the address and port that a connection was led here from.
func askedFor(c net.Conn) (asked netip.AddrPort, ok bool) {
	t, is := c.(*net.TCPConn)
	if !is {
		return asked, false
	}
	raw, err := t.SyscallConn()
	if err != nil {
		return asked, false
	}
	at, _ := t.LocalAddr().(*net.TCPAddr)
	v4 := at != nil && at.AddrPort().Addr().Unmap().Is4()
	cerr := raw.Control(func(fd uintptr) {
		if v4 {
			// A struct sockaddr_in fits into what this reads.
			var m *unix.IPv6Mreq
			if m, err = unix.GetsockoptIPv6Mreq(int(fd), unix.SOL_IP, originalDst); err == nil {
				b := m.Multiaddr
				asked = netip.AddrPortFrom(netip.AddrFrom4([4]byte(b[4:8])), uint16(b[2])<<8|uint16(b[3]))
			}
			return
		}
		var m *unix.IPv6MTUInfo // begins with a struct sockaddr_in6
		if m, err = unix.GetsockoptIPv6MTUInfo(int(fd), unix.SOL_IPV6, originalDst); err == nil {
			port := binary.NativeEndian.AppendUint16(nil, m.Addr.Port) // it is in the network's order
			asked = netip.AddrPortFrom(netip.AddrFrom16(m.Addr.Addr), binary.BigEndian.Uint16(port))
		}
	})
	return asked, err == nil && cerr == nil
}

// lookup asks conntrack where the flows of datagrams were led from.
type lookup struct {
	port    uint16
	gateway func(netip.Addr) netip.Addr
	conn    *conntrack.Conn // of the one goroutine that asks
}

// askedFor is the address and port that a client's flow to the relay was addressed to.
func (l *lookup) askedFor(client netip.AddrPort) (netip.AddrPort, bool) {
	if l.conn == nil {
		conn, err := conntrack.Dial(nil)
		if err != nil {
			return netip.AddrPort{}, false
		}
		l.conn = conn
	}
	gateway := l.gateway(client.Addr())
	// The flow is found by either of its tuples; the library takes its family from both.
	reply := conntrack.Tuple{
		IP:    conntrack.IPTuple{SourceAddress: gateway, DestinationAddress: client.Addr()},
		Proto: conntrack.ProtoTuple{Protocol: language.ProtoUDP, SourcePort: l.port, DestinationPort: client.Port()},
	}
	f, err := l.conn.Get(conntrack.Flow{TupleOrig: reply, TupleReply: reply})
	if err != nil {
		if !errors.Is(err, syscall.ENOENT) {
			l.close() // dialled again for the next one
		}
		return netip.AddrPort{}, false
	}
	t := f.TupleOrig
	return netip.AddrPortFrom(t.IP.DestinationAddress.Unmap(), t.Proto.DestinationPort), t.IP.SourceAddress.Unmap() == client.Addr()
}

func (l *lookup) close() {
	if l.conn != nil {
		_ = l.conn.Close()
		l.conn = nil
	}
}
