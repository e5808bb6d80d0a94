package relay

import (
	"context"
	"errors"
	"maps"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"time"
)

// UDP relays the datagrams that come out of one socket, to which a kernel's NAT has led them:
// which service a client has called is the kernel's to say.
type UDP struct {
	Conn *net.UDPConn
	// Find gives the service address and port that the flow of a client, as the socket sees it,
	// was addressed to; false: there is no such flow any more.
	Find func(client netip.AddrPort) (service netip.AddrPort, ok bool)
	// Open calls the target for a client.
	Open func(ctx context.Context, client, service netip.AddrPort) (net.Conn, error)
	// Most is how many flows there may be at once, and a quarter of it of one client's address.
	Most int

	mu    sync.Mutex
	flows map[netip.AddrPort]*udpFlow
	of    map[netip.Addr]int
}

// lookAgain is for how long an answer of Find is believed. A flow that was cut may be followed
// at once by one to another service from the same port, which looks the same to the socket.
const lookAgain = 250 * time.Millisecond

// udpFlow is one client's flow to one service.
type udpFlow struct {
	service netip.AddrPort
	target  net.Conn
	begun   time.Time

	mu       sync.Mutex
	looked   time.Time // when Find was asked last
	seen     time.Time // the last datagram
	answered bool
	stream   bool
}

// Serve relays until the socket is closed or ctx ends.
func (u *UDP) Serve(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	u.mu.Lock()
	u.flows, u.of = map[netip.AddrPort]*udpFlow{}, map[netip.Addr]int{}
	u.mu.Unlock()
	context.AfterFunc(ctx, func() { u.Conn.Close() })
	go u.sweep(ctx)
	defer u.endAll()
	b := make([]byte, 64<<10)
	for {
		n, client, err := u.Conn.ReadFromUDPAddrPort(b)
		switch {
		case errors.Is(err, net.ErrClosed):
			return ctx.Err()
		case err != nil:
			continue // an ICMP error about what was sent before
		}
		client = netip.AddrPortFrom(client.Addr().Unmap(), client.Port())
		if f := u.flow(ctx, client, time.Now()); f != nil {
			f.target.Write(b[:n]) // what is lost here is lost as on any line
		}
	}
}

// flow is the flow that a client's datagram belongs to; nil: it belongs to none.
func (u *UDP) flow(ctx context.Context, client netip.AddrPort, now time.Time) *udpFlow {
	u.mu.Lock()
	f := u.flows[client]
	u.mu.Unlock()
	if f != nil && f.believed(now) {
		return f
	}
	service, ok := u.Find(client)
	if f != nil {
		if ok && f.service == service {
			f.touch(now, false)
			return f
		}
		u.end(client, f)
	}
	if !ok || !u.room(client) {
		return nil
	}
	target, err := u.Open(ctx, client, service)
	if err != nil {
		return nil
	}
	f = &udpFlow{service: service, target: target, begun: now, looked: now, seen: now}
	u.mu.Lock()
	u.flows[client] = f
	u.of[client.Addr()]++
	u.mu.Unlock()
	go u.back(client, f)
	return f
}

// Cut ends the flow of a client, as the socket sees it: the kernel has cut it.
func (u *UDP) Cut(client netip.AddrPort) {
	u.mu.Lock()
	f := u.flows[client]
	u.mu.Unlock()
	if f != nil {
		u.end(client, f)
	}
}

func (u *UDP) room(client netip.AddrPort) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	return len(u.flows) < u.Most && u.of[client.Addr()] < max(u.Most/4, 1)
}

// back carries the answers.
func (u *UDP) back(client netip.AddrPort, f *udpFlow) {
	defer u.end(client, f)
	b := make([]byte, 64<<10)
	for {
		n, err := f.target.Read(b)
		if errors.Is(err, syscall.ECONNREFUSED) {
			continue // nobody is at the port; somebody may come
		}
		if err != nil {
			return
		}
		f.touch(time.Now(), true)
		if _, err := u.Conn.WriteToUDPAddrPort(b[:n], client); errors.Is(err, net.ErrClosed) {
			return
		}
	}
}

// believed notes a client's datagram, and tells whether Find need not be asked.
func (f *udpFlow) believed(now time.Time) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if now.Sub(f.looked) >= lookAgain {
		f.looked = now
		return false
	}
	f.touchLocked(now, false)
	return true
}

func (f *udpFlow) touch(now time.Time, back bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.touchLocked(now, back)
}

func (f *udpFlow) touchLocked(now time.Time, back bool) {
	f.seen = now
	f.answered = f.answered || back
	f.stream = f.stream || f.answered && now.Sub(f.begun) > UDPYoung
}

// idle tells whether nothing has passed for too long.
func (f *udpFlow) idle(now time.Time) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.stream {
		return now.Sub(f.seen) > UDPStreamIdle
	}
	return now.Sub(f.seen) > UDPIdle
}

// sweep ends what is idle.
func (u *UDP) sweep(ctx context.Context) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-tick.C:
			u.mu.Lock()
			idle := map[netip.AddrPort]*udpFlow{}
			for client, f := range u.flows {
				if f.idle(now) {
					idle[client] = f
				}
			}
			u.mu.Unlock()
			for client, f := range idle {
				u.end(client, f)
			}
		}
	}
}

func (u *UDP) end(client netip.AddrPort, f *udpFlow) {
	f.target.Close()
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.flows[client] == f {
		delete(u.flows, client)
		if u.of[client.Addr()]--; u.of[client.Addr()] <= 0 {
			delete(u.of, client.Addr())
		}
	}
}

func (u *UDP) endAll() {
	u.mu.Lock()
	flows := maps.Clone(u.flows)
	u.mu.Unlock()
	for client, f := range flows {
		u.end(client, f)
	}
}
