package relay

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"syscall"
	"testing"
	"time"
)

var caller = Caller{
	Client: netip.MustParseAddrPort("10.77.0.2:40000"), Service: netip.MustParseAddrPort("10.77.128.5:5432"),
	Tunnel: netip.MustParseAddr("10.77.0.2"), User: "alice", Device: "laptop",
}

// anyLocal are options by which everything on this host may be called.
func anyLocal() Options {
	return Options{Local: func(string, netip.AddrPort) error { return nil }, Socket: func(ctx context.Context, path string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", path)
	}}
}

func newRelay(t testing.TB, o Options) *Relay {
	t.Helper()
	r := New(o)
	t.Cleanup(func() { r.Close() })
	return r
}

func listen(t testing.TB, network, address string) net.Listener {
	t.Helper()
	l, err := net.Listen(network, address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

func portOf(a net.Addr) netip.AddrPort {
	switch a := a.(type) {
	case *net.UDPAddr:
		return unmap(a.AddrPort())
	default:
		return unmap(a.(*net.TCPAddr).AddrPort())
	}
}

// call is a client's connection that the relay carries, and what ServeTCP will say.
func call(t testing.TB, r *Relay, c Caller, target Target) (*net.TCPConn, <-chan error) {
	t.Helper()
	client, near := tcpPair(t)
	done := make(chan error, 1)
	go func() { done <- r.ServeTCP(t.Context(), near, c, target) }()
	return client, done
}

func tcpPair(t testing.TB) (a, b *net.TCPConn) {
	t.Helper()
	l := listen(t, "tcp4", "127.0.0.1:0")
	defer l.Close()
	c, err := net.Dial("tcp4", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	s, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close(); s.Close() })
	return c.(*net.TCPConn), s.(*net.TCPConn)
}

func accept(t testing.TB, l net.Listener) net.Conn {
	t.Helper()
	c, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func write(t testing.TB, c net.Conn, s string) {
	t.Helper()
	if _, err := c.Write([]byte(s)); err != nil {
		t.Fatal(err)
	}
}

func read(t testing.TB, c net.Conn, want string) {
	t.Helper()
	c.SetReadDeadline(time.Now().Add(5 * time.Second))
	b := make([]byte, len(want))
	if _, err := io.ReadFull(c, b); err != nil || string(b) != want {
		t.Fatalf("read %q, %v, want %q", b, err, want)
	}
}

func wantEOF(t testing.TB, c net.Conn) {
	t.Helper()
	c.SetReadDeadline(time.Now().Add(5 * time.Second))
	if n, err := c.Read(make([]byte, 1)); n != 0 || err != io.EOF {
		t.Fatalf("read %d bytes, %v, want the end", n, err)
	}
}

func wantReset(t testing.TB, c net.Conn) {
	t.Helper()
	c.SetReadDeadline(time.Now().Add(time.Second))
	if n, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Fatalf("read %d bytes, %v, want a reset", n, err)
	}
}

func wait(t testing.TB, done <-chan error) error {
	t.Helper()
	select {
	case err := <-done:
		return err
	case <-time.After(5 * time.Second):
		t.Fatal("the flow does not end")
		return nil
	}
}

func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(5 * time.Second); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal(what)
		}
	}
}
