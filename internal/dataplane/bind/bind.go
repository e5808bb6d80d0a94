// Package bind is WireGuard's UDP socket, for wireguard-go in both planes.
//
// It owns what stands between a WireGuard message and the kernel: many messages in one
// system call, segmentation offload where the kernel has it (UDP_SEGMENT, UDP_GRO), and
// the address that a peer knows us by. It knows nothing of peers.
//
//   - What the kernel refuses as a batch goes out message by message, and fragmented where
//     the path is narrow: like the kernel's WireGuard, it never forbids fragments.
//   - An answer leaves from the address that the question came to (sticky source), whatever
//     else the host has, for as long as the host has that address. Which interface it
//     leaves by is routing's affair.
//   - No address lives in a pool: each Endpoint has its own, which never changes.
//
// A Bind can be wrapped: a type that embeds it and passes on what Open's functions receive
// sees each message, with its sender, before WireGuard does.
package bind

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"syscall"

	"golang.zx2c4.com/wireguard/conn"
)

// Bind implements conn.Bind.
type Bind struct {
	offload offload // what is asked of the kernel

	mu     sync.RWMutex
	addr   netip.Addr
	mark   uint32
	v4, v6 *socket // nil while closed, and for a family that there is not

	knownMu sync.Mutex
	known   map[netip.AddrPort]netip.Addr // the address of ours that who is there knows
}

var _ conn.Bind = (*Bind)(nil)

// New returns a Bind that will listen on a; an unspecified or invalid address means all.
func New(a netip.Addr) *Bind {
	return &Bind{addr: a.Unmap(), offload: offload{send: true, receive: true}}
}

// SetAddr chooses the address of the next Open and returns the former.
func (b *Bind) SetAddr(a netip.Addr) netip.Addr {
	b.mu.Lock()
	defer b.mu.Unlock()
	old := b.addr
	b.addr = a.Unmap()
	return old
}

// tries bounds how often a port is looked for that both families have free.
const tries = 100

// Open implements conn.Bind.
func (b *Bind) Open(port uint16) ([]conn.ReceiveFunc, uint16, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.v4 != nil || b.v6 != nil {
		return nil, 0, conn.ErrBindAlreadyOpen
	}
	v4, v6, err := b.openLocked(port)
	for n := 1; port == 0 && errors.Is(err, syscall.EADDRINUSE) && n < tries; n++ {
		v4, v6, err = b.openLocked(port)
	}
	if err != nil {
		return nil, 0, err
	}
	b.v4, b.v6 = v4, v6
	var fns []conn.ReceiveFunc
	for _, s := range []*socket{v4, v6} {
		if s != nil {
			fns = append(fns, newReceiver(s.pc).receive)
		}
	}
	return fns, cmp.Or(v4, v6).port(), nil
}

// openLocked opens a socket for each family, on the same port.
func (b *Bind) openLocked(port uint16) (v4, v6 *socket, err error) {
	any := !b.addr.IsValid() || b.addr.IsUnspecified()
	open := func(a netip.Addr) *socket {
		if err != nil || !any && b.addr.Is4() != a.Is4() {
			return nil
		}
		if !any {
			a = b.addr
		}
		s, e := openSocket(netip.AddrPortFrom(a, port), b.mark, b.offload)
		if e != nil && !(any && errors.Is(e, syscall.EAFNOSUPPORT)) {
			err = e
		}
		return s
	}
	if v4 = open(netip.IPv4Unspecified()); v4 != nil {
		port = v4.port()
	}
	v6 = open(netip.IPv6Unspecified())
	if err == nil && v4 == nil && v6 == nil {
		err = syscall.EAFNOSUPPORT
	}
	if err != nil {
		return nil, nil, errors.Join(err, v4.close(), v6.close())
	}
	return v4, v6, nil
}

// Close implements conn.Bind. What waits in a receive function returns net.ErrClosed.
func (b *Bind) Close() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	err := errors.Join(b.v4.close(), b.v6.close())
	b.v4, b.v6 = nil, nil
	return err
}

// SetMark implements conn.Bind: the fwmark of what is sent, also after another Open.
func (b *Bind) SetMark(mark uint32) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if err := errors.Join(b.v4.setMark(mark), b.v6.setMark(mark)); err != nil {
		return fmt.Errorf("giving WireGuard's socket the mark %#x: %w", mark, err)
	}
	b.mark = mark
	return nil
}

// Send implements conn.Bind. Where the kernel refuses some messages for their size the
// others go out all the same; the error is of the first that did not.
func (b *Bind) Send(bufs [][]byte, ep conn.Endpoint) error {
	e, ok := ep.(*Endpoint)
	if !ok {
		return conn.ErrWrongEndpointType
	}
	b.mu.RLock()
	s := b.v4
	if e.dst.Addr().Is6() {
		s = b.v6
	}
	open := b.v4 != nil || b.v6 != nil
	b.mu.RUnlock()
	switch {
	case !open:
		return net.ErrClosed
	case s == nil:
		return syscall.EAFNOSUPPORT
	}
	if e.src.IsValid() && len(bufs) > 0 && len(bufs[0]) != cookieReply && !e.noted.Swap(true) {
		b.note(e)
	}
	return s.send(bufs, e)
}

const (
	// cookieReply is the size of what WireGuard answers to those that it does not know yet.
	cookieReply = 64
	// maxKnown bounds what is remembered: twice the peers that wireguard-go takes.
	maxKnown = 1 << 17
)

func (b *Bind) note(e *Endpoint) {
	b.knownMu.Lock()
	defer b.knownMu.Unlock()
	if b.known == nil || len(b.known) >= maxKnown {
		b.known = map[netip.AddrPort]netip.Addr{}
	}
	b.known[e.dst] = e.src
}

// Local is the address of ours from which a peer at dst was last answered; invalid if that
// was left to routing.
func (b *Bind) Local(dst netip.AddrPort) netip.Addr {
	b.knownMu.Lock()
	defer b.knownMu.Unlock()
	return b.known[dst]
}

// ParseEndpoint implements conn.Bind.
func (*Bind) ParseEndpoint(s string) (conn.Endpoint, error) {
	a, err := netip.ParseAddrPort(s)
	if err != nil {
		return nil, err
	}
	return NewEndpoint(a, netip.Addr{}), nil
}

// BatchSize implements conn.Bind.
func (*Bind) BatchSize() int { return conn.IdealBatchSize }
