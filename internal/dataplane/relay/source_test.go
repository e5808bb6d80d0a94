package relay

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"vpnd/internal/dataplane"
)

// What is on this host is never called as the host itself, and May says so without a call.
func TestNeverAsTheHostItself(t *testing.T) {
	l := serve(t, "tcp4", "127.0.0.1:0", func(c net.Conn) { io.WriteString(c, addrPort(c.RemoteAddr()).Addr().String()); c.Close() })
	d := dialer()
	d.Here = func(a netip.Addr) bool {
		return a == netip.MustParseAddr("fd00::9") || a == netip.MustParseAddr("192.0.2.9")
	}
	here := func(a string) *dataplane.Service {
		return &dataplane.Service{Name: "x", Hosts: []netip.Addr{netip.MustParseAddr(a)}}
	}
	without4 := caller
	without4.Addr4 = netip.Addr{}
	fromGateway := service(l)
	fromGateway.FromGateway = true
	for _, test := range []struct {
		what string
		s    *dataplane.Service
		c    Caller
		ok   bool
	}{
		{"an IPv6 address of this host", here("fd00::9"), caller, false},
		{"an address of this host, for a device without IPv4", here("192.0.2.9"), without4, false},
		{"from the gateway, who has no address", fromGateway, caller, false},
		{"loopback", service(l), caller, true},
		{"elsewhere", here("192.0.2.8"), without4, true},
	} {
		err := d.May("tcp", test.s, test.c)
		if test.ok && err != nil || !test.ok && !errors.Is(err, ErrUndialable) {
			t.Errorf("%s: may it be called: %v", test.what, err)
		}
		if test.ok {
			continue
		}
		if c, err := d.Dial(t.Context(), "tcp", test.s, test.c); !errors.Is(err, ErrUndialable) {
			t.Errorf("%s: %v, %v", test.what, c, err)
		}
	}
	d.Gateway = func(netip.Addr) netip.Addr { return netip.MustParseAddr("127.9.9.9") }
	c, err := d.Dial(t.Context(), "tcp", fromGateway, caller)
	if err != nil {
		t.Fatal(err)
	}
	if b, _ := io.ReadAll(c); string(b) != "127.9.9.9" {
		t.Errorf("from the gateway's address: it sees %q", b)
	}
}

// An address that does not answer leaves time for the next.
func TestSilentAddress(t *testing.T) {
	// A listener whose queue is full answers no SYN.
	silent, l := samePort(t)
	if err := fillQueue(t, silent); err != nil {
		t.Fatal(err)
	}
	at := addrPort(silent.Addr())
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			c.Close()
		}
	}()
	s := &dataplane.Service{Hosts: []netip.Addr{at.Addr(), netip.MustParseAddr("127.0.0.1")}, ToPort: at.Port()}
	start := time.Now()
	c, err := dialer().Dial(t.Context(), "tcp", s, caller)
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
	if took := time.Since(start); took < addressTime/2 || took > 2*addressTime {
		t.Errorf("connected after %v, want about %v", took, addressTime)
	}
}

// samePort listens on one port of two addresses of this host.
func samePort(t *testing.T) (a, b net.Listener) {
	t.Helper()
	var last error
	for range 20 {
		a, err := net.Listen("tcp4", "127.0.0.9:0")
		if err != nil {
			t.Fatal(err)
		}
		b, err := net.Listen("tcp4", netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), addrPort(a.Addr()).Port()).String())
		if err != nil { // somebody else's port
			a.Close()
			last = err
			continue
		}
		t.Cleanup(func() { a.Close(); b.Close() })
		return a, b
	}
	t.Fatal(last)
	return nil, nil
}

// fillQueue connects until nobody is answered any more.
func fillQueue(t *testing.T, l net.Listener) error {
	if err := shorten(l); err != nil {
		return err
	}
	for range 16 {
		ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		c, err := (&net.Dialer{}).DialContext(ctx, "tcp", l.Addr().String())
		cancel()
		if err != nil {
			return nil
		}
		t.Cleanup(func() { c.Close() })
	}
	return errors.New("the queue takes everybody")
}

// The PROXY protocol and unix sockets are TCP's.
func TestUDPIsToldNothing(t *testing.T) {
	p, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	at := addrPort(p.LocalAddr())
	c, err := dialer().Dial(t.Context(), "udp", &dataplane.Service{Hosts: []netip.Addr{at.Addr()}, ToPort: at.Port(), ProxyV2: true}, caller)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	io.WriteString(c, "first")
	b := make([]byte, 100)
	p.SetReadDeadline(time.Now().Add(5 * time.Second))
	if n, from, err := p.ReadFrom(b); err != nil || string(b[:n]) != "first" || addrPort(from).Addr() != netip.MustParseAddr("127.77.0.2") {
		t.Errorf("the first datagram is %q from %v, %v", b[:n], from, err)
	}
	path := filepath.Join(t.TempDir(), "x.sock")
	serve(t, "unix", path, func(c net.Conn) { c.Close() })
	if c, err := dialer().Dial(t.Context(), "udp", &dataplane.Service{Path: path}, caller); !errors.Is(err, ErrUndialable) {
		t.Errorf("a unix socket by UDP: %v, %v", c, err)
	}
}

// shorten gives a listener the shortest queue there is.
func shorten(l net.Listener) error {
	raw, err := l.(*net.TCPListener).SyscallConn()
	if err != nil {
		return err
	}
	var lerr error
	err = raw.Control(func(fd uintptr) { lerr = syscall.Listen(int(fd), 0) })
	return errors.Join(err, lerr)
}
