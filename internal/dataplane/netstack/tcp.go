package netstack

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"syscall"
	"time"

	proxyproto "github.com/pires/go-proxyproto"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/waiter"
)

const (
	dialTimeout = 15 * time.Second
	// A device that went away without a word is noticed by keepalives; seldom, because
	// they wake phones.
	keepaliveIdle     = 30 * time.Minute
	keepaliveInterval = time.Minute
	keepaliveCount    = 5
	// lingerLimit bounds how long a closed connection may take to send its rest.
	lingerLimit = time.Minute
)

// errTooMany refuses a connection of a device that has, or is dialling, too many others.
var errTooMany = errors.New("too many connections")

// acceptTCP connects a flow that the filter has let in. The stack calls it in a
// goroutine of its own; until it completes r the device's handshake hangs.
func (p *Plane) acceptTCP(r *tcp.ForwarderRequest) {
	f := p.flows.get(keyOfID(r.ID(), protoTCP))
	if f == nil || f.dead.Load() || f.kind == kindPeer {
		r.Complete(true)
		return
	}
	if f.kind == kindPortal {
		if c := p.answerTCP(r, f); c != nil {
			p.portal.deliver(&portalConn{TCPConn: c, done: func() { p.linger(f) }})
		}
		return
	}
	ctx, cancel := context.WithTimeout(p.ctx, dialTimeout)
	defer cancel()
	if !f.onCut(cancel) {
		r.Complete(true)
		return
	}
	host, err := halfCloser(nil), errTooMany
	if f.kind == kindApp {
		defer f.src.apps.Add(-1)
		if f.src.apps.Add(1) > maxApps {
			p.dialFailed(r, f, errTooMany)
			return
		}
	}
	if f.src.dials.Add(1) <= maxDials {
		host, err = p.dialTCP(ctx, f)
	}
	f.src.dials.Add(-1)
	if err != nil {
		p.dialFailed(r, f, err)
		return
	}
	if !f.onCut(func() { reset(host) }) {
		reset(host)
		r.Complete(true)
		return
	}
	c := p.answerTCP(r, f)
	if c == nil {
		reset(host)
		return
	}
	p.splice(f, c, host)
	p.linger(f)
}

// dialTCP opens the host's side of f.
func (p *Plane) dialTCP(ctx context.Context, f *flow) (halfCloser, error) {
	switch f.kind {
	case kindApp:
	case kindService:
		return p.dialService(ctx, "tcp", f)
	default:
		return p.dialHost(ctx, "tcp", f.key.dst)
	}
	if p.cfg.AppSocket == "" {
		return nil, syscall.ECONNREFUSED
	}
	var d net.Dialer
	c, err := d.DialContext(ctx, "unix", p.cfg.AppSocket)
	if err != nil {
		return nil, err
	}
	h := proxyproto.HeaderProxyFromAddrs(2, net.TCPAddrFromAddrPort(f.key.src), net.TCPAddrFromAddrPort(f.key.dst))
	if _, err := h.WriteTo(c); err != nil {
		c.Close()
		return nil, err
	}
	return c.(*net.UnixConn), nil
}

// dialFailed tells the device why its connection cannot be: refused by a reset, out of
// reach by ICMP.
func (p *Plane) dialFailed(r *tcp.ForwarderRequest, f *flow, err error) {
	unreachable := errors.Is(err, syscall.EHOSTUNREACH) || errors.Is(err, syscall.ENETUNREACH) ||
		errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, syscall.ETIMEDOUT)
	if f.dead.Load() || !unreachable {
		r.Complete(true)
		p.cut(f)
		return
	}
	r.Complete(false)
	p.unreachable(f)
	p.cut(f)
}

// answerTCP completes the device's handshake. It returns nil, with everything undone,
// when the device is gone or the flow was cut.
func (p *Plane) answerTCP(r *tcp.ForwarderRequest, f *flow) *gonet.TCPConn {
	var wq waiter.Queue
	ep, err := r.CreateEndpoint(&wq)
	if err != nil {
		r.Complete(true)
		p.cut(f)
		return nil
	}
	r.Complete(false)
	ep.SocketOptions().SetKeepAlive(true)
	idle, interval := tcpip.KeepaliveIdleOption(keepaliveIdle), tcpip.KeepaliveIntervalOption(keepaliveInterval)
	ep.SetSockOpt(&idle)
	ep.SetSockOpt(&interval)
	ep.SetSockOptInt(tcpip.KeepaliveCountOption, keepaliveCount)
	f.mu.Lock()
	f.drained = func() bool {
		switch tcp.EndpointState(ep.State()) {
		case tcp.StateClose, tcp.StateError, tcp.StateTimeWait:
			return true
		}
		return false
	}
	f.mu.Unlock()
	if !f.onCut(ep.Abort) {
		ep.Abort()
		return nil
	}
	return gonet.NewTCPConn(&wq, ep)
}

// linger keeps an ended flow in the table until the stack has sent the rest.
func (p *Plane) linger(f *flow) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.ended.IsZero() {
		f.ended = time.Now()
	}
}

// halfCloser is a stream whose directions end one by one.
type halfCloser interface {
	net.Conn
	CloseWrite() error
}

// splice copies both ways until both ends are done, or one fails: then both are reset.
func (p *Plane) splice(f *flow, device, host halfCloser) {
	errs := make(chan error, 2)
	go func() { errs <- copyHalf(device, host) }()
	go func() { errs <- copyHalf(host, device) }()
	for range 2 {
		if err := <-errs; err != nil {
			p.cut(f)
		}
	}
	host.Close()
	device.Close()
}

// copyHalf copies src to dst and passes on its end.
func copyHalf(dst, src halfCloser) error {
	// Hide ReaderFrom and WriterTo: neither end can splice in the kernel, and their
	// fallbacks allocate.
	_, err := io.CopyBuffer(struct{ io.Writer }{dst}, struct{ io.Reader }{src}, make([]byte, 32<<10))
	if err != nil {
		return err
	}
	return dst.CloseWrite()
}

// reset ends a connection at once, discarding what is not sent.
func reset(c net.Conn) {
	if t, ok := c.(*net.TCPConn); ok {
		t.SetLinger(0)
	}
	c.Close()
}
