package netstack

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// errUndialable is why the host does not dial an address whatever the policy says.
var errUndialable = errors.New("never dialled")

// Prefixes whose addresses carry an IPv4 address, and where in the 16 bytes it begins.
var embedding = []struct {
	prefix netip.Prefix
	at     int
}{
	{netip.MustParsePrefix("::ffff:0:0/96"), 12},   // IPv4-mapped
	{netip.MustParsePrefix("::ffff:0:0:0/96"), 12}, // IPv4-translated, RFC 2765
	{netip.MustParsePrefix("::/96"), 12},           // IPv4-compatible, RFC 4291
	{netip.MustParsePrefix("64:ff9b::/96"), 12},    // NAT64, RFC 6052
	{netip.MustParsePrefix("2002::/16"), 2},        // 6to4, RFC 3056
}

var (
	thisNetwork = netip.MustParsePrefix("0.0.0.0/8")      // RFC 1122
	reserved4   = netip.MustParsePrefix("240.0.0.0/4")    // with 255.255.255.255
	localNAT64  = netip.MustParsePrefix("64:ff9b:1::/48") // RFC 8215: its form is unknown
	siteLocal   = netip.MustParsePrefix("fec0::/10")      // deprecated, RFC 3879
)

// undialable says why the host must not dial a: it would mean the host itself, everyone,
// or the tunnel.
func (p *Plane) undialable(a netip.Addr) error {
	a = innermost(a)
	switch {
	case !a.IsValid(), a.Zone() != "", a.IsUnspecified(), a.IsLoopback(), a.IsMulticast(),
		a.IsLinkLocalUnicast(), a.IsInterfaceLocalMulticast(),
		thisNetwork.Contains(a), reserved4.Contains(a), localNAT64.Contains(a), siteLocal.Contains(a):
		return fmt.Errorf("%v: %w", a, errUndialable)
	case within(p.near.Load().Network, a):
		return fmt.Errorf("%v is in the tunnel: %w", a, errUndialable)
	}
	return nil
}

// innermost is the address that a carries, or a.
func innermost(a netip.Addr) netip.Addr {
	for a.Is6() {
		inner, ok := embedded(a)
		if !ok {
			break
		}
		a = inner
	}
	return a
}

// embedded returns the IPv4 address that a carries by a well-known rule.
func embedded(a netip.Addr) (netip.Addr, bool) {
	b := a.As16()
	for _, e := range embedding {
		// Contains does not match mapped addresses: compare as IPv6.
		if e.prefix.Bits() > 0 && samePrefix(b, e.prefix) {
			if a.IsLoopback() || a.IsUnspecified() {
				return a, false // ::1 and :: are judged as they are
			}
			return netip.AddrFrom4([4]byte(b[e.at : e.at+4])), true
		}
	}
	return a, false
}

func samePrefix(b [16]byte, p netip.Prefix) bool {
	q := p.Addr().As16()
	n := p.Bits() / 8 // all of them end on a byte
	return string(b[:n]) == string(q[:n])
}

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
	own := append([]netip.AddrPort{p.near.Load().Listen}, p.cfg.Own...)
	for _, o := range own {
		if o.Port() != to.Port() {
			continue
		}
		if o.Addr().Unmap() == to.Addr() || (!o.Addr().IsValid() || o.Addr().IsUnspecified()) && isLocal(to.Addr()) {
			return fmt.Errorf("%v is the gateway's own: %w", to, errUndialable)
		}
	}
	return nil
}

// isLocal says whether the host answers on a itself. The kernel is asked three ways: for
// the addresses of its interfaces; whether a can be bound, which goes for addresses that a
// route makes local; and for the source towards a, which for a local address is the same.
func isLocal(a netip.Addr) bool {
	if addrs, err := net.InterfaceAddrs(); err == nil {
		for _, i := range addrs {
			if n, ok := i.(*net.IPNet); ok {
				if b, ok := netip.AddrFromSlice(n.IP); ok && b.Unmap() == a {
					return true
				}
			}
		}
	}
	if bindable(a) && !bindsAnything(a.Is6()) {
		return true
	}
	c, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(netip.AddrPortFrom(a, 9)))
	if err != nil {
		return false
	}
	defer c.Close()
	return c.LocalAddr().(*net.UDPAddr).AddrPort().Addr().Unmap() == a
}

func bindable(a netip.Addr) bool {
	c, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(a, 0)))
	if err != nil {
		return false
	}
	c.Close()
	return true
}

// bindsAnything says whether sysctl ip_nonlocal_bind lets any address be bound.
func bindsAnything(v6 bool) bool {
	path := "/proc/sys/net/ipv4/ip_nonlocal_bind"
	if v6 {
		path = "/proc/sys/net/ipv6/ip_nonlocal_bind"
	}
	b, err := os.ReadFile(path)
	return err == nil && strings.TrimSpace(string(b)) != "0"
}
