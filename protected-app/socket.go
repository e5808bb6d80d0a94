package main

import (
	"errors"
	"fmt"
	"net"
	"os"
	"time"

	"github.com/pires/go-proxyproto"
	"golang.org/x/sys/unix"

	"vpnd/internal/owner"
)

// socketListener accepts vpnd's relayed connections: each begins with a PROXY protocol
// v2 header that names the tunnel's two ends. Only root and the own user may connect, since
// whoever connects says who is calling.
type socketListener struct {
	net.Listener
	path string
}

func listenSocket(path string) (*socketListener, error) {
	own := owner.Self()
	if err := own.Above(path, "--socket", 0o755); err != nil {
		return nil, err
	}
	if err := own.Socket(path, "--socket"); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	if c, err := net.Dial("unix", path); err == nil {
		c.Close()
		return nil, fmt.Errorf("another program answers on %s: stop it, or choose another --socket", path)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("removing the socket that an earlier run left: %w", err)
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, fmt.Errorf("listening on --socket %s: %w", path, err)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		l.Close()
		return nil, fmt.Errorf("closing --socket %s to others: %w", path, err)
	}
	return &socketListener{
		Listener: &proxyproto.Listener{
			Listener:          credListener{l},
			ReadHeaderTimeout: 5 * time.Second,
			ConnPolicy: func(proxyproto.ConnPolicyOptions) (proxyproto.Policy, error) {
				return proxyproto.REQUIRE, nil
			},
		},
		path: path,
	}, nil
}

func (s *socketListener) where() string { return "the socket " + s.path }

// credListener drops connections of other users.
type credListener struct{ net.Listener }

func (l credListener) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		if uid, err := peerUID(c); err == nil && (uid == 0 || int(uid) == os.Geteuid()) {
			return c, nil
		}
		c.Close()
	}
}

// peerUID reads who is at the other end of a unix socket (unix(7), SO_PEERCRED).
func peerUID(c net.Conn) (uint32, error) {
	raw, err := c.(*net.UnixConn).SyscallConn()
	if err != nil {
		return 0, err
	}
	var cred *unix.Ucred
	var cerr error
	if err := raw.Control(func(fd uintptr) {
		cred, cerr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	}); err != nil {
		return 0, err
	}
	if cerr != nil {
		return 0, cerr
	}
	return cred.Uid, nil
}
