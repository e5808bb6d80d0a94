package relay

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"vpnd/internal/dataplane/local"
)

// maxWorked bounds what is remembered of targets with several addresses.
const maxWorked = 16384

// dialFunc opens a TCP or UDP socket; from is not valid where routing chooses.
type dialFunc func(ctx context.Context, network string, from netip.Addr, to netip.AddrPort) (net.Conn, error)

// dialTarget tries a target's addresses one by one.
func (r *Relay) dialTarget(ctx context.Context, network string, c Caller, t Target) (net.Conn, error) {
	if t.Path != "" {
		if network != "tcp" || r.opts.Socket == nil {
			return nil, fmt.Errorf("the socket %s is not published on this host", t.Path)
		}
		return r.opts.Socket(ctx, t.Path)
	}
	if len(t.Addrs) == 0 {
		return nil, errors.New("nobody knows where the target is")
	}
	var failed []error
	for i, to := range r.inOrder(c.Service, t.Addrs) {
		conn, err := r.dialOne(ctx, network, c, t, to, len(t.Addrs)-i)
		if err == nil {
			if i > 0 {
				r.remember(c.Service, to)
			}
			return conn, nil
		}
		failed = append(failed, err)
		if ctx.Err() != nil {
			break
		}
	}
	return nil, errors.Join(failed...)
}

// dialOne tries one address, the first of left: it has its share of the time that is left.
func (r *Relay) dialOne(ctx context.Context, network string, c Caller, t Target, to netip.AddrPort, left int) (net.Conn, error) {
	to = netip.AddrPortFrom(to.Addr().Unmap(), to.Port())
	from, err := r.source(network, c, t, to)
	if err != nil {
		return nil, err
	}
	if end, ok := ctx.Deadline(); ok && left > 1 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, time.Until(end)/time.Duration(left))
		defer cancel()
	}
	return r.opts.dial(ctx, network, from, to)
}

// source judges a target's address, and says from where it is called.
func (r *Relay) source(network string, c Caller, t Target, to netip.AddrPort) (netip.Addr, error) {
	a := to.Addr()
	if !local.Has(a) {
		if r.opts.Elsewhere != nil {
			return netip.Addr{}, r.opts.Elsewhere(to)
		}
		return netip.Addr{}, local.Dialable(a, nil)
	}
	if a.Is6() && a.IsLoopback() {
		return netip.Addr{}, fmt.Errorf("%v: what listens on ::1 alone cannot be told who calls: let it listen on 127.0.0.1", to)
	}
	if !a.IsLoopback() {
		if err := local.Dialable(a, nil); err != nil { // 0.0.0.0, or good on one link alone
			return netip.Addr{}, err
		}
	}
	if r.opts.Local == nil {
		return netip.Addr{}, fmt.Errorf("%v is not published on this host", to)
	}
	if err := r.opts.Local(network, to); err != nil {
		return netip.Addr{}, err
	}
	for _, from := range t.From {
		if from = from.Unmap(); from.Is4() == a.Is4() && !from.IsLoopback() {
			return from, nil
		}
	}
	if a.Is6() {
		return netip.Addr{}, fmt.Errorf(`%v: no IPv6 address of this host can stand for a device: write its IPv4 address, or "from": "gateway"`, to)
	}
	return local.Standin(c.Tunnel)
}

// inOrder are a target's addresses, the one that answered last time first.
func (r *Relay) inOrder(service netip.AddrPort, addrs []netip.AddrPort) []netip.AddrPort {
	if len(addrs) == 1 {
		return addrs
	}
	r.mu.Lock()
	last, ok := r.worked[service]
	r.mu.Unlock()
	i := slices.Index(addrs, last)
	if !ok || i <= 0 {
		return addrs
	}
	return append([]netip.AddrPort{last}, slices.Delete(slices.Clone(addrs), i, i+1)...)
}

func (r *Relay) remember(service, to netip.AddrPort) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.worked) >= maxWorked {
		clear(r.worked)
	}
	r.worked[service] = to
}

func dial(ctx context.Context, network string, from netip.Addr, to netip.AddrPort) (net.Conn, error) {
	d := net.Dialer{Control: func(network, _ string, c syscall.RawConn) error {
		var err error
		cerr := c.Control(func(fd uintptr) {
			if network[:3] == "udp" {
				// Go switches broadcasts on for UDP; a subnet's broadcast address is known to
				// the kernel alone, and without this it refuses it.
				err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_BROADCAST, 0)
				return
			}
			// A port is chosen when it is known for which target (ip(7)): one source address
			// then has as many connections to each.
			unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_BIND_ADDRESS_NO_PORT, 1)
		})
		return errors.Join(err, cerr)
	}}
	d.SetMultipathTCP(false)
	if from.IsValid() {
		if network == "tcp" {
			d.LocalAddr = net.TCPAddrFromAddrPort(netip.AddrPortFrom(from, 0))
		} else {
			d.LocalAddr = net.UDPAddrFromAddrPort(netip.AddrPortFrom(from, 0))
		}
	}
	return d.DialContext(ctx, network, to.String())
}
