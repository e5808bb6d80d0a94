package netstack

import (
	"context"
	"net"
	"sync"

	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
)

// portalBacklog is how many connections may wait for Accept; further ones are reset.
const portalBacklog = 256

// portal is the listener that only the tunnel can reach.
type portal struct {
	conns  chan *portalConn
	addr   func() net.Addr
	closed chan struct{}
	once   sync.Once
}

func newPortal(addr func() net.Addr) *portal {
	return &portal{conns: make(chan *portalConn, portalBacklog), addr: addr, closed: make(chan struct{})}
}

// portalConn is a device's connection: its RemoteAddr is the device's tunnel address,
// its LocalAddr the address that the device asked for.
type portalConn struct {
	*gonet.TCPConn
	done func()
	once sync.Once
}

// Close ends the connection; what was written is still delivered.
func (c *portalConn) Close() error {
	err := c.TCPConn.Close()
	c.once.Do(c.done)
	return err
}

// deliver hands c to Accept.
func (l *portal) deliver(c *portalConn) {
	select {
	case <-l.closed:
		c.Close()
		return
	default:
	}
	select {
	case l.conns <- c:
	default:
		c.Close()
	}
}

// Accept implements net.Listener.
func (l *portal) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener.
func (l *portal) Close() error {
	l.once.Do(func() { close(l.closed) })
	for {
		select {
		case c := <-l.conns:
			c.Close()
		default:
			return nil
		}
	}
}

// Addr implements net.Listener: the first gateway address, port 80.
func (l *portal) Addr() net.Addr { return l.addr() }

// Listen returns the listener of the portal. There is one: it is the same at each call.
func (p *Plane) Listen(context.Context) (net.Listener, error) { return p.portal, nil }
