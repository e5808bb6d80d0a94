// Package relay carries flows of published resources that a kernel's NAT cannot: to what is
// on the gateway's own host, to unix sockets, from a client of one family to a target of the
// other, and with the PROXY protocol. Both planes use it.
//
// It decides nothing about who may call: the plane has judged a flow before it comes here, and
// cuts it. What may be called on this host is said by dataplane.Config's LocalTarget.
package relay

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"syscall"

	proxyproto "github.com/pires/go-proxyproto"
	"golang.org/x/sys/unix"

	"vpnd/internal/dataplane"
)

// ErrUndialable is why a target is not called whatever the policy says.
var ErrUndialable = errors.New("never dialled")

// ErrUnknown means that nobody knows where a target is.
var ErrUnknown = errors.New("where it is is not known")

// Caller is who calls a service.
type Caller struct {
	Client  netip.AddrPort // in the tunnel
	Service netip.AddrPort // the service address and port that was called
	// Addr4 is the device's IPv4 tunnel address; it stands for the device on this host.
	Addr4        netip.Addr
	User, Device string
}

// Dialer calls the targets of services.
type Dialer struct {
	// Local is dataplane.Config's LocalTarget.
	Local func(network string, target netip.AddrPort, path string) error
	// Own tells whether an address and port is one of the daemon's own listeners.
	Own func(network string, target netip.AddrPort) bool
	// Here tells whether an address is one of this host's.
	Here func(netip.Addr) bool
	// Tunnel tells whether an address lies in the tunnel's network.
	Tunnel func(netip.Addr) bool
	// Gateway is the address to dial from where a service says so, in the family of the target;
	// invalid: as routing chooses.
	Gateway func(to netip.Addr) netip.Addr
}

// Dial calls the target of a service for one caller, by its addresses in turn until one
// accepts. network is "tcp" or "udp"; the port is that of the caller's Service.
func (d *Dialer) Dial(ctx context.Context, network string, s *dataplane.Service, c Caller) (net.Conn, error) {
	conn, err := d.dial(ctx, network, s, c)
	if err != nil {
		return nil, fmt.Errorf("calling the resource %q: %w", s.Name, err)
	}
	if s.ProxyV2 {
		if err := introduce(conn, c); err != nil {
			conn.Close()
			return nil, fmt.Errorf("telling the resource %q who calls: %w", s.Name, err)
		}
	}
	return conn, nil
}

func (d *Dialer) dial(ctx context.Context, network string, s *dataplane.Service, c Caller) (net.Conn, error) {
	if s.Path != "" {
		return d.unix(ctx, s.Path)
	}
	if len(s.Hosts) == 0 {
		return nil, ErrUnknown
	}
	port := c.Service.Port()
	if s.ToPort != 0 {
		port = s.ToPort
	}
	var errs []error
	for _, a := range s.Hosts {
		conn, err := d.host(ctx, network, netip.AddrPortFrom(a.Unmap(), port), s.FromGateway, c)
		if err == nil {
			return conn, nil
		}
		errs = append(errs, err)
		if ctx.Err() != nil {
			break
		}
	}
	return nil, errors.Join(errs...)
}

// host calls an address and port.
func (d *Dialer) host(ctx context.Context, network string, to netip.AddrPort, fromGateway bool, c Caller) (net.Conn, error) {
	a := to.Addr()
	switch {
	case !a.IsValid(), a.Zone() != "", a.IsUnspecified(), a.IsMulticast(), a.IsLinkLocalUnicast(), a == netip.IPv6Loopback(),
		a == netip.AddrFrom4([4]byte{255, 255, 255, 255}):
		return nil, fmt.Errorf("%v: %w", a, ErrUndialable)
	case d.Tunnel(a):
		return nil, fmt.Errorf("%v is in the tunnel: %w", a, ErrUndialable)
	case d.Own(network, to):
		return nil, fmt.Errorf("%v is the gateway's own: %w", to, ErrUndialable)
	}
	dialer := net.Dialer{Control: noBroadcast}
	if a.IsLoopback() || d.Here(a) {
		if d.Local == nil {
			return nil, fmt.Errorf("%v is on this host: %w", to, ErrUndialable)
		}
		if err := d.Local(network, to, ""); err != nil {
			return nil, err
		}
		from := Stand(c.Addr4)
		if fromGateway || a.Is6() {
			from = d.Gateway(a)
		}
		switch {
		case from.IsValid() && network == "udp":
			dialer.LocalAddr = net.UDPAddrFromAddrPort(netip.AddrPortFrom(from, 0))
		case from.IsValid():
			dialer.LocalAddr = net.TCPAddrFromAddrPort(netip.AddrPortFrom(from, 0))
		case a.IsLoopback(): // never as the host itself
			return nil, fmt.Errorf("%v: nothing stands for this device there: %w", to, ErrUndialable)
		}
	}
	return dialer.DialContext(ctx, network, to.String())
}

// noBroadcast undoes what Go switches on for UDP: a subnet's broadcast address is known to the
// kernel alone, and without this it refuses it.
func noBroadcast(_, _ string, c syscall.RawConn) error {
	var err error
	cerr := c.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_BROADCAST, 0) })
	return errors.Join(err, cerr)
}

// unix calls a socket by the file that Local has looked at, whatever the path leads to by then.
func (d *Dialer) unix(ctx context.Context, path string) (net.Conn, error) {
	if d.Local == nil {
		return nil, fmt.Errorf("%s is on this host: %w", path, ErrUndialable)
	}
	fd, err := unix.Open(path, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EACCES) {
			return nil, fmt.Errorf("%s: %w; if it is there, the service's sandbox hides it: give vpnd.service a BindPaths= for its folder", path, err)
		}
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	defer unix.Close(fd)
	held := fmt.Sprintf("/proc/self/fd/%d", fd)
	at, err := os.Readlink(held)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if err := d.Local("unix", netip.AddrPort{}, at); err != nil {
		return nil, err
	}
	if at != path {
		if err := d.Local("unix", netip.AddrPort{}, path); err != nil {
			return nil, err
		}
	}
	return (&net.Dialer{}).DialContext(ctx, "unix", held)
}

// Stand is the address of 127.0.0.0/8 that stands for a device on the gateway's own host:
// 127.77.0.2 for 10.77.0.2. It is never one of 127.0.0.0/24, which is the host's own in what
// trusts "localhost"; a network that would lead there is moved to 127.255.255.0/24.
func Stand(device netip.Addr) netip.Addr {
	if !device.Is4() {
		return netip.Addr{}
	}
	b := device.As4()
	b[0] = 127
	if b[1] == 0 && b[2] == 0 {
		b[1], b[2] = 255, 255
	}
	return netip.AddrFrom4(b)
}

// TLVs of the PROXY protocol that are for applications (section 2.2 of its text): the names of
// who is calling.
const (
	tlvUser   proxyproto.PP2Type = 0xE0
	tlvDevice proxyproto.PP2Type = 0xE1
)

// introduce tells a target who is calling.
func introduce(conn net.Conn, c Caller) error {
	h := proxyproto.HeaderProxyFromAddrs(2, net.TCPAddrFromAddrPort(c.Client), net.TCPAddrFromAddrPort(c.Service))
	if err := h.SetTLVs([]proxyproto.TLV{{Type: tlvUser, Value: []byte(c.User)}, {Type: tlvDevice, Value: []byte(c.Device)}}); err != nil {
		return err
	}
	_, err := h.WriteTo(conn)
	return err
}
