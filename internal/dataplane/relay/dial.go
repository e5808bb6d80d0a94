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
	"time"

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
	// Gateway is the address to dial from where a service on this host says so, in the family of
	// the target; invalid: there is none.
	Gateway func(to netip.Addr) netip.Addr
}

// Dial calls the target of a service for one caller, by its addresses in turn until one
// accepts. network is "tcp" or "udp"; the port is that of the caller's Service.
func (d *Dialer) Dial(ctx context.Context, network string, s *dataplane.Service, c Caller) (net.Conn, error) {
	conn, err := d.dial(ctx, network, s, c)
	if err != nil {
		return nil, fmt.Errorf("calling the resource %q: %w", s.Name, err)
	}
	if s.ProxyV2 && network == "tcp" {
		if err := introduce(conn, c); err != nil {
			conn.Close()
			return nil, fmt.Errorf("telling the resource %q who calls: %w", s.Name, err)
		}
	}
	return conn, nil
}

// addressTime bounds how long one address of several is waited for: two SYNs.
const addressTime = 2 * time.Second

func (d *Dialer) dial(ctx context.Context, network string, s *dataplane.Service, c Caller) (net.Conn, error) {
	if s.Path != "" {
		file, err := d.socket(network, s.Path)
		if err != nil {
			return nil, err
		}
		defer file.Close()
		return (&net.Dialer{}).DialContext(ctx, "unix", held(file))
	}
	if len(s.Hosts) == 0 {
		return nil, ErrUnknown
	}
	var errs []error
	for i, a := range s.Hosts {
		conn, err := d.host(ctx, network, a, s, c, i == len(s.Hosts)-1)
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

// host calls one address of a service. Those that are not the last leave time for the others.
func (d *Dialer) host(ctx context.Context, network string, a netip.Addr, s *dataplane.Service, c Caller, last bool) (net.Conn, error) {
	to := target(a, s, c)
	from, err := d.source(network, to, s, c)
	if err != nil {
		return nil, err
	}
	if !last {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, addressTime)
		defer cancel()
	}
	dialer := net.Dialer{Control: noBroadcast}
	switch {
	case from.IsValid() && network == "udp":
		dialer.LocalAddr = net.UDPAddrFromAddrPort(netip.AddrPortFrom(from, 0))
	case from.IsValid():
		dialer.LocalAddr = net.TCPAddrFromAddrPort(netip.AddrPortFrom(from, 0))
	}
	return dialer.DialContext(ctx, network, to.String())
}

// target is where a service's flow leads at one of its addresses.
func target(a netip.Addr, s *dataplane.Service, c Caller) netip.AddrPort {
	port := c.Service.Port()
	if s.ToPort != 0 {
		port = s.ToPort
	}
	return netip.AddrPortFrom(a.Unmap(), port)
}

// May tells whether the target of a service would be called for a caller: the error is Dial's
// where it is not. It calls nobody.
func (d *Dialer) May(network string, s *dataplane.Service, c Caller) error {
	if s.Path != "" {
		file, err := d.socket(network, s.Path)
		if err == nil {
			file.Close()
		}
		return err
	}
	if len(s.Hosts) == 0 {
		return ErrUnknown
	}
	var errs []error
	for _, a := range s.Hosts {
		_, err := d.source(network, target(a, s, c), s, c)
		if err == nil {
			return nil
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// source judges an address and port, and says from where it is called; not valid: as routing
// chooses.
func (d *Dialer) source(network string, to netip.AddrPort, s *dataplane.Service, c Caller) (netip.Addr, error) {
	a := to.Addr()
	switch {
	case !a.IsValid(), a.Zone() != "", a.IsUnspecified(), a.IsMulticast(), a.IsLinkLocalUnicast(), a == netip.IPv6Loopback(),
		a == netip.AddrFrom4([4]byte{255, 255, 255, 255}):
		return netip.Addr{}, fmt.Errorf("%v: %w", a, ErrUndialable)
	case d.Tunnel(a):
		return netip.Addr{}, fmt.Errorf("%v is in the tunnel: %w", a, ErrUndialable)
	case d.Own(network, to):
		return netip.Addr{}, fmt.Errorf("%v is the gateway's own: %w", to, ErrUndialable)
	case !a.IsLoopback() && !d.Here(a):
		return netip.Addr{}, nil
	case d.Local == nil:
		return netip.Addr{}, fmt.Errorf("%v is on this host: %w", to, ErrUndialable)
	}
	if err := d.Local(network, to, ""); err != nil {
		return netip.Addr{}, err
	}
	// Never as the host itself: what listens there may trust it.
	from, why := netip.Addr{}, "the device has no IPv4 address, and no other stands for it there"
	switch {
	case s.FromGateway:
		from, why = d.Gateway(a), "the gateway has no address to call it from"
	case a.Is4():
		from = Stand(c.Addr4)
	default:
		why = `no IPv6 address stands for a device there: write its IPv4 address, or "from": "gateway"`
	}
	if !from.IsValid() {
		return from, fmt.Errorf("%v is on this host, and %s: %w", to, why, ErrUndialable)
	}
	return from, nil
}

// noBroadcast undoes what Go switches on for UDP: a subnet's broadcast address is known to the
// kernel alone, and without this it refuses it.
func noBroadcast(_, _ string, c syscall.RawConn) error {
	var err error
	cerr := c.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_BROADCAST, 0) })
	return errors.Join(err, cerr)
}

// socket opens the file of a unix socket and asks Local about it, so that what is called is what
// Local has looked at, whatever the path leads to by then.
func (d *Dialer) socket(network, path string) (*os.File, error) {
	switch {
	case network != "tcp":
		return nil, fmt.Errorf("%s is called by TCP alone: %w", path, ErrUndialable)
	case d.Local == nil:
		return nil, fmt.Errorf("%s is on this host: %w", path, ErrUndialable)
	}
	fd, err := unix.Open(path, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EACCES) {
			return nil, fmt.Errorf("%s: %w; if it is there, the service's sandbox hides it: give vpnd.service a BindPaths= for its folder", path, err)
		}
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	file := os.NewFile(uintptr(fd), path)
	at, err := os.Readlink(held(file))
	if err == nil {
		err = d.Local("unix", netip.AddrPort{}, at)
	}
	if err == nil && at != path {
		err = d.Local("unix", netip.AddrPort{}, path)
	}
	if err != nil {
		file.Close()
		return nil, err
	}
	return file, nil
}

// held is the path that leads to an open file.
func held(file *os.File) string { return fmt.Sprintf("/proc/self/fd/%d", file.Fd()) }

// Stand is the address of 127.0.0.0/8 that stands for a device on the gateway's own host:
// 127.77.0.2 for 10.77.0.2. It is never one of 127.0.0.0/16, where the host's own are
// (127.0.0.1, and 127.0.1.1 on Debian): a network that would lead there is moved to
// 127.255.0.0/16, whose counterpart in so large a network is kept for resources.
func Stand(device netip.Addr) netip.Addr {
	if !device.Is4() {
		return netip.Addr{}
	}
	b := device.As4()
	b[0] = 127
	if b[1] == 0 {
		b[1] = 255
	}
	if b == [4]byte{127, 255, 255, 255} {
		return netip.Addr{} // for broadcasts
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
