package relay

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"
)

const (
	dialTimeout = 10 * time.Second
	// Whoever went away without a word is noticed by keepalives: devices seldom, because they
	// wake phones.
	clientIdle     = 30 * time.Minute
	clientInterval = time.Minute
	// A client that has closed its end is asked sooner: most have closed the other one with
	// it, and not every server ends what its client has ended.
	halfIdle       = 2 * time.Minute
	targetIdle     = 2 * time.Minute
	targetInterval = 30 * time.Second
	keepaliveCount = 5
)

// Stream is a connection whose directions end one by one. One that has a method Abort is reset
// by it, and another one as TCP connections are.
type Stream interface {
	net.Conn
	CloseWrite() error
}

// ServeTCP carries one connection until both of its ends are done, and closes it. The client's
// handshake may be complete already: that the target refuses is told to it by a reset.
func (r *Relay) ServeTCP(ctx context.Context, client Stream, c Caller, t Target) error {
	f, err := r.Begin(c)
	if err != nil {
		abort(client)
		return err
	}
	if !f.onCut(func() { abort(client) }) {
		abort(client)
		return ErrCut
	}
	defer context.AfterFunc(ctx, f.Cut)()
	if err := f.Dial(ctx, t); err != nil {
		f.Cut()
		return err
	}
	return f.carry(client)
}

// Dial connects f with its target, and says who calls where the target is to be told. When
// it fails the flow is cut.
func (f *Flow) Dial(ctx context.Context, t Target) error {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	if !f.onCut(cancel) {
		return ErrCut
	}
	up, err := f.dialStream(ctx, t)
	if err != nil {
		cut := f.isCut()
		f.Cut()
		if cut {
			return ErrCut
		}
		return err
	}
	f.up = up
	if !f.onCut(func() { abort(up) }) {
		abort(up)
		return ErrCut
	}
	return nil
}

func (f *Flow) dialStream(ctx context.Context, t Target) (Stream, error) {
	c, err := f.relay.dialTarget(ctx, "tcp", f.caller, t)
	if err != nil {
		return nil, err
	}
	up, ok := c.(Stream)
	if !ok {
		c.Close()
		return nil, fmt.Errorf("%T has no halves to close", c)
	}
	if t.ProxyV2 {
		header, err := ProxyHeader(f.caller)
		if err == nil {
			_, err = up.Write(header)
		}
		if err != nil {
			abort(up)
			return nil, fmt.Errorf("telling the target who calls: %w", err)
		}
	}
	return up, nil
}

// Carry carries the client's connection to the target that Dial has connected, until both of
// its ends are done, and closes it.
func (f *Flow) Carry(client Stream) error {
	if !f.onCut(func() { abort(client) }) {
		abort(client)
		return ErrCut
	}
	return f.carry(client)
}

func (f *Flow) carry(client Stream) error {
	keepalive(client, clientIdle, clientInterval)
	keepalive(f.up, targetIdle, targetInterval)
	errs := make(chan error, 2)
	go func() {
		err := f.relay.pipes.half(f.up, client)
		if err == nil {
			keepalive(client, halfIdle, targetInterval)
		}
		errs <- err
	}()
	go func() { errs <- f.relay.pipes.half(client, f.up) }()
	var first error
	for range 2 {
		if err := <-errs; err != nil && first == nil {
			first = err
			if f.isCut() {
				first = ErrCut
			}
			f.Cut() // and so ends the other direction
		}
	}
	f.mu.Lock()
	f.ends = nil // both are closed here, and need no reset
	f.mu.Unlock()
	client.Close()
	f.up.Close()
	f.relay.remove(f)
	return first
}

// abort ends a connection at once, discarding what is not sent: its other end sees a reset.
func abort(c net.Conn) {
	switch c := c.(type) {
	case interface{ Abort() }:
		c.Abort()
	case interface{ SetLinger(int) error }:
		c.SetLinger(0)
	}
	c.Close()
}

func keepalive(c net.Conn, idle, interval time.Duration) {
	if t, ok := c.(*net.TCPConn); ok {
		t.SetKeepAliveConfig(net.KeepAliveConfig{Enable: true, Idle: idle, Interval: interval, Count: keepaliveCount})
	}
}

// Timeout tells whether a flow failed because its target did not answer.
func Timeout(err error) bool {
	var t net.Error
	return errors.Is(err, context.DeadlineExceeded) || errors.As(err, &t) && t.Timeout()
}
