package accept

import (
	"errors"
	"io"
	"net"
	"sync"
	"syscall"
)

// conn gives its place free when it is closed. It keeps the abilities of a socket that
// servers ask for.
type conn struct {
	net.Conn
	once  sync.Once
	leave func()
}

// Close implements net.Conn.
func (c *conn) Close() error {
	err := c.Conn.Close()
	c.once.Do(c.leave)
	return err
}

// CloseWrite ends one direction, where the connection can.
func (c *conn) CloseWrite() error {
	if h, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return h.CloseWrite()
	}
	return errors.ErrUnsupported
}

// ReadFrom lets the kernel copy a file, where it can.
func (c *conn) ReadFrom(r io.Reader) (int64, error) { return io.Copy(c.Conn, r) }

// SyscallConn gives the socket, for who asks the kernel about it.
func (c *conn) SyscallConn() (syscall.RawConn, error) {
	if s, ok := c.Conn.(syscall.Conn); ok {
		return s.SyscallConn()
	}
	return nil, errors.ErrUnsupported
}

// Reset ends a connection so that it leaves no trace in the kernel.
func Reset(c net.Conn) {
	defer c.Close()
	for {
		switch s := c.(type) {
		case *conn:
			c = s.Conn
		case *net.TCPConn:
			s.SetLinger(0)
			return
		default:
			return
		}
	}
}
