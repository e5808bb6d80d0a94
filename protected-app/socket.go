package main

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/user"
	"strconv"
	"time"

	"github.com/pires/go-proxyproto"
	"golang.org/x/sys/unix"

	"vpnd/internal/owner"
)

// socketListener accepts vpnd's relayed connections: each begins with a PROXY protocol
// v2 header that names the tunnel's two ends. Only root, the own user and vpnd's may connect,
// since whoever connects says who is calling.
type socketListener struct {
	net.Listener
	path string
}

// listenSocket opens path for root, the own user and the user vpnd (-1: nobody else).
func listenSocket(path string, vpnd int) (*socketListener, error) {
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
	mode := os.FileMode(0o600)
	if vpnd >= 0 {
		mode = 0o660 // vpnd comes in by the folder's group; credListener asks who it really is
	}
	if err := os.Chmod(path, mode); err != nil {
		l.Close()
		return nil, fmt.Errorf("closing --socket %s to others: %w", path, err)
	}
	return &socketListener{
		Listener: &proxyproto.Listener{
			Listener:          credListener{l, vpnd},
			ReadHeaderTimeout: 5 * time.Second,
			ConnPolicy: func(proxyproto.ConnPolicyOptions) (proxyproto.Policy, error) {
				return proxyproto.REQUIRE, nil
			},
		},
		path: path,
	}, nil
}

func (s *socketListener) where() string { return "the socket " + s.path }

// vpndUID is the number of the user that --vpnd-user names; -1 without one.
func vpndUID(name string) (int, error) {
	if name == "" {
		return -1, nil
	}
	if n, err := strconv.Atoi(name); err == nil && n >= 0 {
		return n, nil
	}
	u, err := user.Lookup(name)
	if err != nil {
		return -1, fmt.Errorf("--vpnd-user %q: there is no such user on this host; name the one that vpnd runs as", name)
	}
	return strconv.Atoi(u.Uid)
}

// credListener drops connections of users other than root, the own one and vpnd's.
type credListener struct {
	net.Listener
	vpnd int
}

func (l credListener) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		if uid, err := peerUID(c); err == nil && (uid == 0 || int(uid) == os.Geteuid() || int(uid) == l.vpnd) {
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
