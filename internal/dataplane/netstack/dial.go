package netstack

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"

	"golang.org/x/sys/unix"

	"vpnd/internal/dataplane/local"
)

// undialable says why the host must not dial a: it would mean the host itself, everyone,
// or the tunnel.
func (p *Plane) undialable(a netip.Addr) error { return local.Dialable(a, p.near.Load().Network) }

// dialHost opens a TCP or UDP socket of the host to a resource.
func (p *Plane) dialHost(ctx context.Context, network string, to netip.AddrPort) (halfCloser, error) {
	if err := p.undialable(to.Addr()); err != nil {
		return nil, err
	}
	if err := p.ownListener(to); err != nil {
		return nil, err
	}
	d := net.Dialer{Control: func(_, _ string, c syscall.RawConn) error {
		var err error
		// Go switches broadcasts on for UDP; a subnet's broadcast address is known to
		// the kernel alone, and without this it refuses it.
		cerr := c.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_BROADCAST, 0) })
		return errors.Join(err, cerr)
	}}
	c, err := d.DialContext(ctx, network, to.String())
	if err != nil {
		return nil, err
	}
	if t, ok := c.(*net.TCPConn); ok {
		return t, nil
	}
	return udpSocket{c.(*net.UDPConn)}, nil
}

// udpSocket is a datagram socket where a stream could stand; it has no half to close.
type udpSocket struct{ *net.UDPConn }

func (udpSocket) CloseWrite() error { return nil }

// ownListener refuses what is one of the daemon's own listeners, or the gateway's
// WireGuard port.
func (p *Plane) ownListener(to netip.AddrPort) error {
	if local.IsOwn(to, append([]netip.AddrPort{p.near.Load().Listen}, p.cfg.Own...)) {
		return fmt.Errorf("%v is the gateway's own: %w", to, local.ErrUndialable)
	}
	return nil
}
