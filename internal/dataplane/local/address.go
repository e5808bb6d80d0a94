// Package local knows what is on this host: which addresses are its own, which of its ports
// and sockets may be published, and from where they are called. It changes nothing, and knows
// neither policy nor devices.
package local

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
)

// ErrUndialable is why the host does not dial an address whatever the policy says.
var ErrUndialable = errors.New("never dialled")

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

// Dialable says why the host must not dial a, which would mean the host itself, everyone, or
// the tunnel; nil where it may. Its errors are ErrUndialable.
func Dialable(a netip.Addr, tunnel []netip.Prefix) error {
	for a.Is6() {
		inner, ok := embedded(a)
		if !ok {
			break
		}
		a = inner
	}
	switch {
	case !a.IsValid():
		return fmt.Errorf("no address: %w", ErrUndialable)
	case a.IsLoopback():
		return fmt.Errorf("%v is this host's loopback: %w", a, ErrUndialable)
	case a.Zone() != "", a.IsLinkLocalUnicast():
		return fmt.Errorf("%v is good on one link alone: %w", a, ErrUndialable)
	case a.IsMulticast(), a.IsInterfaceLocalMulticast():
		return fmt.Errorf("%v is a multicast address: %w", a, ErrUndialable)
	case a.IsUnspecified(), thisNetwork.Contains(a), reserved4.Contains(a), localNAT64.Contains(a), siteLocal.Contains(a):
		return fmt.Errorf("%v is no host's address: %w", a, ErrUndialable)
	}
	for _, p := range tunnel {
		if p.Contains(a) {
			return fmt.Errorf("%v is in the tunnel: %w", a, ErrUndialable)
		}
	}
	return nil
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

// Has says whether this host answers on a itself. The kernel is asked three ways: for
// the addresses of its interfaces; whether a can be bound, which goes for addresses that a
// route makes local; and for the source towards a, which for a local address is the same.
func Has(a netip.Addr) bool {
	if a = a.Unmap(); a.IsLoopback() {
		return true
	}
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

// IsOwn tells whether to is one of the process's own listeners. One at no address, or at the
// unspecified one, is at every address of this host.
func IsOwn(to netip.AddrPort, own []netip.AddrPort) bool {
	a := to.Addr().Unmap()
	for _, o := range own {
		if o.Port() != to.Port() {
			continue
		}
		if o.Addr().Unmap() == a || (!o.Addr().IsValid() || o.Addr().IsUnspecified()) && Has(a) {
			return true
		}
	}
	return false
}
