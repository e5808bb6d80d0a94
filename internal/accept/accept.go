// Package accept bounds what strangers can hold of a listener: connections from one source,
// and in all. A connection above a bound is reset at once, so that neither descriptors nor
// the kernel's queue fill, and the rest of the process keeps what it needs.
//
// It counts and resets; what a connection may do, and for how long, is its server's matter.
package accept

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"strconv"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Limits are those of one listener.
type Limits struct {
	Name   string // in the log, as "public portal"
	All    int    // connections at once; 0: any number
	Each   int    // of one source; 0: any number
	Source func(net.Conn) string
}

// Network is the source of a stranger on the internet: an IPv4 address, or the /64 that
// an IPv6 host has to itself.
func Network(c net.Conn) string {
	a, ok := c.RemoteAddr().(*net.TCPAddr)
	if !ok {
		return ""
	}
	addr := a.AddrPort().Addr().Unmap().WithZone("")
	if addr.Is4() {
		return addr.String()
	}
	return netip.PrefixFrom(addr, 64).Masked().String()
}

// Address is the source inside the tunnel, where each device has addresses of its own.
func Address(c net.Conn) string {
	a, ok := c.RemoteAddr().(*net.TCPAddr)
	if !ok {
		return ""
	}
	return a.AddrPort().Addr().Unmap().String()
}

// User is the source of a unix socket's connection: the uid that the kernel tells.
func User(c net.Conn) string {
	s, ok := c.(syscall.Conn)
	if !ok {
		return ""
	}
	raw, err := s.SyscallConn()
	if err != nil {
		return ""
	}
	var cred *unix.Ucred
	var credErr error
	if err := raw.Control(func(fd uintptr) {
		cred, credErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	}); err != nil || credErr != nil {
		return ""
	}
	return "uid " + strconv.FormatUint(uint64(cred.Uid), 10)
}

// Limit bounds l. Its Accept goes on when the host is short of descriptors or memory, and
// what it refuses is logged once a minute.
func Limit(l net.Listener, limits Limits, log *slog.Logger) net.Listener {
	return &listener{Listener: l, limits: limits, by: make(map[string]int), closed: make(chan struct{}), refused: notice{log: log, name: limits.Name}}
}

type listener struct {
	net.Listener
	limits  Limits
	closed  chan struct{}
	once    sync.Once
	refused notice

	mu  sync.Mutex
	all int
	by  map[string]int // connections by source
}

// Waits after a failure of accept(2): the first, and the longest.
const (
	shortWait = 5 * time.Millisecond
	longWait  = time.Second
)

// Accept implements net.Listener.
func (l *listener) Accept() (net.Conn, error) {
	for wait := shortWait; ; {
		c, err := l.Listener.Accept()
		if err != nil {
			if !passing(err) {
				return nil, err
			}
			l.refused.add("", err.Error())
			select {
			case <-time.After(wait):
			case <-l.closed:
				return nil, net.ErrClosed
			}
			wait = min(2*wait, longWait)
			continue
		}
		wait = shortWait
		source := ""
		if l.limits.Source != nil {
			source = l.limits.Source(c)
		}
		if why := l.enter(source); why != "" {
			Reset(c)
			l.refused.add(source, why)
			continue
		}
		return &conn{Conn: c, leave: func() { l.leave(source) }}, nil
	}
}

// passing says whether the next accept may succeed: others may end meanwhile, or the error
// is that of the one connection (accept(2)).
func passing(err error) bool {
	for _, e := range []error{unix.EMFILE, unix.ENFILE, unix.ENOBUFS, unix.ENOMEM, unix.ECONNABORTED, unix.EINTR, unix.EPERM, unix.EPROTO,
		unix.ENETDOWN, unix.ENOPROTOOPT, unix.EHOSTDOWN, unix.ENONET, unix.EHOSTUNREACH, unix.EOPNOTSUPP, unix.ENETUNREACH} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// enter counts a connection in, or says why it must go.
func (l *listener) enter(source string) (why string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.limits.All > 0 && l.all >= l.limits.All:
		return fmt.Sprintf("as many are open in all as may be: %d", l.all)
	case l.limits.Each > 0 && l.by[source] >= l.limits.Each:
		return fmt.Sprintf("its source has as many open as it may: %d", l.by[source])
	}
	l.all++
	l.by[source]++
	return ""
}

func (l *listener) leave(source string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.all--
	if l.by[source]--; l.by[source] == 0 {
		delete(l.by, source)
	}
}

// Close implements net.Listener.
func (l *listener) Close() error {
	l.once.Do(func() { close(l.closed) })
	l.refused.stop()
	return l.Listener.Close()
}
