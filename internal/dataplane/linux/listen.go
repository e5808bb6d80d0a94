package linux

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"vpnd/internal/accept"
	"vpnd/internal/dataplane"
)

// listener accepts TCP connections from the tunnel's interface only. Its socket is
// bound to the interface, not just to an address: a neighbour who sends a tunnel
// address to the host by another interface does not reach it. A socket keeps the index
// of an interface that is gone, so it is made again when the interface is.
type listener struct {
	iface string
	what  string // it is of, for messages
	limit bool   // the number of connections
	port  uint16
	hold  int // keeps the port ours between two sockets; -1 when closed
	log   *slog.Logger

	mu      sync.Mutex
	network []netip.Prefix // where clients are
	gateway []netip.Addr   // and the gateway among them
	used    bool           // Listen was called, and Close was not since
	cur     net.Listener
	index   int
	conns   chan net.Conn
	closed  chan struct{}
}

// newListener picks the port that the filter redirects to, and keeps it.
func newListener(iface, what string, log *slog.Logger) (*listener, error) {
	fd, err := unix.Socket(unix.AF_INET6, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	var any unix.Sockaddr = &unix.SockaddrInet6{}
	if errors.Is(err, unix.EAFNOSUPPORT) {
		fd, err = unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		any = &unix.SockaddrInet4{}
	}
	if err != nil {
		return nil, fmt.Errorf("picking a port for %s: %w", what, err)
	}
	// Bound and never listening: the listener's socket may share the port with it.
	if err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1); err == nil {
		err = unix.Bind(fd, any)
	}
	var sa unix.Sockaddr
	if err == nil {
		sa, err = unix.Getsockname(fd)
	}
	if err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("picking a port for %s: %w", what, err)
	}
	l := &listener{iface: iface, what: what, hold: fd, log: log}
	switch sa := sa.(type) {
	case *unix.SockaddrInet6:
		l.port = uint16(sa.Port)
	case *unix.SockaddrInet4:
		l.port = uint16(sa.Port)
	}
	return l, nil
}

func (l *listener) open() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.used {
		return fmt.Errorf("%s is being listened on already", l.what)
	}
	l.used, l.index = true, 0
	l.conns, l.closed = make(chan net.Conn), make(chan struct{})
	return nil
}

// bind makes the socket on g's interface of this index, if it is not there already.
func (l *listener) bind(index int, g dataplane.Gateway) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.network, l.gateway = g.Network, g.Addrs
	if !l.used || l.cur != nil && l.index == index {
		return nil
	}
	if l.cur != nil {
		l.cur.Close()
		l.cur = nil
	}
	lc := boundTo(l.iface)
	cur, err := lc.Listen(context.Background(), "tcp", ":"+strconv.Itoa(int(l.port)))
	if err != nil {
		return fmt.Errorf("listening for %s on %s: %w", l.what, l.iface, err)
	}
	if l.limit {
		cur = accept.Limit(cur, accept.Limits{Name: "portal inside the tunnel"}, l.log)
	}
	l.cur, l.index = cur, index
	go l.serve(l.cur, l.conns, l.closed)
	return nil
}

// boundTo makes sockets that get what comes in by one interface alone.
func boundTo(iface string) net.ListenConfig {
	lc := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		var err error
		if err2 := c.Control(func(fd uintptr) {
			err = unix.SetsockoptString(int(fd), unix.SOL_SOCKET, unix.SO_BINDTODEVICE, iface)
		}); err2 != nil {
			return err2
		}
		return err
	}}
	lc.SetMultipathTCP(false)
	return lc
}

func (l *listener) serve(cur net.Listener, conns chan<- net.Conn, closed <-chan struct{}) {
	for {
		c, err := cur.Accept()
		if err != nil {
			if !errors.Is(err, net.ErrClosed) {
				l.log.Warn("accepting", "what", l.what, "why", err)
			}
			return
		}
		if !l.admits(c) {
			accept.Reset(c)
			continue
		}
		select {
		case conns <- c:
		case <-closed:
			c.Close()
			return
		}
	}
}

// admits says whether a connection comes from a client of the tunnel. For packets of the
// host's own to an address of the interface the kernel pretends that they came in by it.
func (l *listener) admits(c net.Conn) bool {
	a, ok := c.RemoteAddr().(*net.TCPAddr)
	if !ok {
		return false
	}
	from := a.AddrPort().Addr().Unmap()
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.ContainsFunc(l.network, func(n netip.Prefix) bool { return n.Contains(from) }) && !slices.Contains(l.gateway, from)
}

// Accept implements net.Listener.
func (l *listener) Accept() (net.Conn, error) {
	l.mu.Lock()
	conns, closed := l.conns, l.closed
	l.mu.Unlock()
	if conns == nil {
		return nil, net.ErrClosed
	}
	select {
	case c := <-conns:
		return c, nil
	case <-closed:
		return nil, net.ErrClosed
	}
}

// Addr implements net.Listener. The port is where the filter redirects to, not 80.
func (l *listener) Addr() net.Addr {
	return net.TCPAddrFromAddrPort(netip.AddrPortFrom(netip.IPv6Unspecified(), l.port))
}

// Close implements net.Listener. The port stays kept for a later Listen.
func (l *listener) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.used {
		return nil
	}
	l.used = false
	close(l.closed)
	if l.cur == nil {
		return nil
	}
	err := l.cur.Close()
	l.cur = nil
	return err
}

// release lets the port go.
func (l *listener) release() error {
	err := l.Close()
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.hold >= 0 {
		unix.Close(l.hold)
		l.hold = -1
	}
	return err
}
