package relay

import (
	"errors"
	"io"
	"net"
	"sync"
	"syscall"
	"time"
)

// HalfCloser is a stream whose directions end one by one.
type HalfCloser interface {
	net.Conn
	CloseWrite() error
}

// Carry copies both ways between two streams, TCP's in the kernel (splice(2)), and passes on
// the end of each direction by itself. It returns when both have ended; where one fails, both
// streams are reset.
func Carry(a, b HalfCloser) {
	var wg sync.WaitGroup
	half := func(to, from HalfCloser) {
		if _, err := io.Copy(to, from); err != nil {
			Reset(a)
			Reset(b)
			return
		}
		if err := to.CloseWrite(); err != nil && !errors.Is(err, syscall.ENOTCONN) {
			Reset(a)
			Reset(b)
		}
	}
	wg.Go(func() { half(a, b) })
	half(b, a)
	wg.Wait()
	a.Close()
	b.Close()
}

// Reset ends a connection at once: what is not sent is discarded, and a TCP peer is told so.
func Reset(c net.Conn) {
	if t, ok := c.(*net.TCPConn); ok {
		t.SetLinger(0)
	}
	c.Close()
}

// How long a flow of datagrams lives without one: as Linux's conntrack has it unless its
// sysctls (net.netfilter.nf_conntrack_udp_timeout and …_stream) were changed. A stream is a
// flow that was answered and still has packets Young after it began
// (net/netfilter/nf_conntrack_proto_udp.c).
const (
	UDPIdle       = 30 * time.Second
	UDPStreamIdle = 2 * time.Minute
	UDPYoung      = 2 * time.Second
)
