package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// listener is a net.Listener that can say to a person where it listens.
type listener interface {
	net.Listener
	where() string
}

// tunnelListener accepts on one interface, and binds anew when the interface returns
// under a new index: a socket bound to a device keeps the dead index.
type tunnelListener struct {
	name string
	port uint16
	log  *slog.Logger
	ctx  context.Context
	stop context.CancelFunc

	mu    sync.Mutex
	inner net.Listener // nil while the interface is away
	index int
	conns chan net.Conn
}

// poll is how often the interface is looked at. vpnd making it anew cuts its
// connections anyway, so half a second more is no loss.
const poll = 500 * time.Millisecond

// listenTunnel refuses an interface that is there and no tunnel, and waits for one that
// is not there yet: vpnd makes it.
func listenTunnel(ctx context.Context, name string, port uint16, logger *slog.Logger) (*tunnelListener, error) {
	ctx, stop := context.WithCancel(ctx)
	t := &tunnelListener{name: name, port: port, log: logger, ctx: ctx, stop: stop, conns: make(chan net.Conn)}
	if err := t.bind(); err != nil {
		if !errors.Is(err, os.ErrNotExist) {
			stop()
			return nil, err
		}
		logger.Info("waiting for the interface, which vpnd makes", "what", name)
	}
	go t.watch()
	return t, nil
}

// checkTunnel says whether name is a layer-3 tunnel: WireGuard and TUN devices are of
// ARPHRD_NONE (65534, linux/if_arp.h); Ethernet, loopback, bridges and veth are not.
func checkTunnel(name string) error {
	if name == "" || len(name) > 15 || strings.ContainsAny(name, "/ \n") || name[0] == '.' {
		return fmt.Errorf("--interface %q is no interface's name", name)
	}
	b, err := os.ReadFile(filepath.Join("/sys/class/net", name, "type"))
	if errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("there is no interface %s: %w", name, os.ErrNotExist)
	}
	if err != nil {
		return fmt.Errorf("looking at the interface %s: %w", name, err)
	}
	if kind := strings.TrimSpace(string(b)); kind != "65534" {
		return fmt.Errorf("%s is no tunnel (its link type is %s): files are served to the tunnel alone; name vpnd's interface with --interface", name, kind)
	}
	return nil
}

// bind opens the listener on the interface as it is now.
func (t *tunnelListener) bind() error {
	if err := checkTunnel(t.name); err != nil {
		return err
	}
	ifi, err := net.InterfaceByName(t.name)
	if err != nil {
		return fmt.Errorf("the interface %s went away: %w", t.name, os.ErrNotExist)
	}
	lc := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		var err error
		if cerr := c.Control(func(fd uintptr) {
			err = unix.BindToDevice(int(fd), t.name)
		}); cerr != nil {
			return cerr
		}
		return err
	}}
	l, err := lc.Listen(t.ctx, "tcp", net.JoinHostPort("", strconv.Itoa(int(t.port))))
	switch {
	case errors.Is(err, syscall.ENODEV):
		return fmt.Errorf("the interface %s went away: %w", t.name, os.ErrNotExist)
	case errors.Is(err, syscall.EADDRINUSE):
		return fmt.Errorf("TCP port %d is in use on %s: stop the other program, or choose another --port", t.port, t.name)
	case err != nil:
		return fmt.Errorf("listening on %s: %w", t.name, err)
	}
	t.mu.Lock()
	t.inner, t.index = l, ifi.Index
	t.mu.Unlock()
	go t.pump(l)
	return nil
}

// pump hands the connections of one binding over until it is closed.
func (t *tunnelListener) pump(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			if errors.Is(err, net.ErrClosed) {
				return
			}
			select { // out of file descriptors, say
			case <-time.After(poll):
				continue
			case <-t.ctx.Done():
				return
			}
		}
		select {
		case t.conns <- c:
		case <-t.ctx.Done():
			c.Close()
			return
		}
	}
}

// watch binds anew when the interface has come back.
func (t *tunnelListener) watch() {
	tick := time.NewTicker(poll)
	defer tick.Stop()
	for {
		select {
		case <-t.ctx.Done():
			return
		case <-tick.C:
		}
		index := 0
		if ifi, err := net.InterfaceByName(t.name); err == nil {
			index = ifi.Index
		}
		t.mu.Lock()
		if t.inner != nil && index != t.index {
			t.inner.Close()
			t.inner = nil
		}
		bound := t.inner != nil
		t.mu.Unlock()
		if bound || index == 0 {
			continue
		}
		switch err := t.bind(); {
		case err == nil:
			t.log.Info("answering", "what", t.where())
		case !errors.Is(err, os.ErrNotExist):
			t.log.Warn("not answering in the tunnel; trying again", "why", err)
		}
	}
}

func (t *tunnelListener) Accept() (net.Conn, error) {
	select {
	case c := <-t.conns:
		return c, nil
	case <-t.ctx.Done():
		return nil, net.ErrClosed
	}
}

func (t *tunnelListener) Close() error {
	t.stop()
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.inner == nil {
		return nil
	}
	err := t.inner.Close()
	t.inner = nil
	return err
}

func (t *tunnelListener) Addr() net.Addr { return &net.TCPAddr{Port: int(t.port)} }

func (t *tunnelListener) where() string {
	return fmt.Sprintf("TCP port %d of the interface %s", t.port, t.name)
}
