package relay

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"sync"
	"time"
)

// Bounds of connections.
const (
	dialTimeout = 10 * time.Second
	// A client that went away without a word is noticed by keepalives; seldom, because they
	// wake phones.
	keepaliveIdle     = 30 * time.Minute
	keepaliveInterval = time.Minute
	keepaliveCount    = 5
)

// TCP relays the connections that come out of one listener, to which a kernel's NAT has led
// them. Where nobody answers, a client's connection is reset.
type TCP struct {
	Listener net.Listener
	// Find gives the service address and port that a connection was addressed to.
	Find func(net.Conn) (service netip.AddrPort, ok bool)
	// Open calls the target for a client.
	Open func(ctx context.Context, client, service netip.AddrPort) (net.Conn, error)
	// Most is how many connections there may be at once, and a quarter of it of one client's
	// address.
	Most int

	mu sync.Mutex
	n  int
	of map[netip.Addr]int
}

// Serve relays until the listener is closed. ctx ends the connections.
func (t *TCP) Serve(ctx context.Context) error {
	t.mu.Lock()
	if t.of == nil {
		t.of = map[netip.Addr]int{}
	}
	t.mu.Unlock()
	for {
		c, err := t.Listener.Accept()
		if errors.Is(err, net.ErrClosed) {
			return err
		}
		if err != nil {
			select { // no descriptors, most likely: others end
			case <-ctx.Done():
				return ctx.Err()
			case <-time.After(50 * time.Millisecond):
			}
			continue
		}
		client := addrPort(c.RemoteAddr())
		if !t.enter(client.Addr()) {
			Reset(c)
			continue
		}
		go func() {
			defer t.leave(client.Addr())
			t.serve(ctx, c, client)
		}()
	}
}

func (t *TCP) serve(ctx context.Context, c net.Conn, client netip.AddrPort) {
	near, ok := c.(HalfCloser)
	service, found := t.Find(c)
	if !ok || !found {
		Reset(c)
		return
	}
	if tcp, ok := c.(*net.TCPConn); ok {
		tcp.SetKeepAliveConfig(net.KeepAliveConfig{Enable: true, Idle: keepaliveIdle, Interval: keepaliveInterval, Count: keepaliveCount})
	}
	dialing, cancel := context.WithTimeout(ctx, dialTimeout)
	far, err := t.Open(dialing, client, service)
	cancel()
	if err != nil {
		Reset(c)
		return
	}
	stop := context.AfterFunc(ctx, func() { Reset(c); Reset(far) })
	defer stop()
	Carry(near, far.(HalfCloser))
}

func (t *TCP) enter(a netip.Addr) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.n >= t.Most || t.of[a] >= max(t.Most/4, 1) {
		return false
	}
	t.n++
	t.of[a]++
	return true
}

func (t *TCP) leave(a netip.Addr) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.n--
	if t.of[a]--; t.of[a] <= 0 {
		delete(t.of, a)
	}
}

func addrPort(a net.Addr) netip.AddrPort {
	switch a := a.(type) {
	case *net.TCPAddr:
		p := a.AddrPort()
		return netip.AddrPortFrom(p.Addr().Unmap(), p.Port())
	case *net.UDPAddr:
		p := a.AddrPort()
		return netip.AddrPortFrom(p.Addr().Unmap(), p.Port())
	}
	return netip.AddrPort{}
}
