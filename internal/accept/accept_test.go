package accept

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"vpnd/internal/logs"
)

// fake gives what it is told to, in order, and then waits until it is closed.
type fake struct {
	give   chan any // net.Conn or error
	closed chan struct{}
}

func newFake(give ...any) *fake {
	f := &fake{give: make(chan any, len(give)), closed: make(chan struct{})}
	for _, g := range give {
		f.give <- g
	}
	return f
}

func (f *fake) Accept() (net.Conn, error) {
	select {
	case g := <-f.give:
		if err, ok := g.(error); ok {
			return nil, err
		}
		return g.(net.Conn), nil
	case <-f.closed:
		return nil, net.ErrClosed
	}
}

func (f *fake) Close() error   { close(f.closed); return nil }
func (f *fake) Addr() net.Addr { return &net.TCPAddr{} }

// fakeConn is a connection from an address.
type fakeConn struct {
	net.Conn
	from   string
	closed bool
}

func (c *fakeConn) RemoteAddr() net.Addr {
	return net.TCPAddrFromAddrPort(netip.MustParseAddrPort(c.from))
}
func (c *fakeConn) Close() error { c.closed = true; return nil }

// lines collects a log.
type lines struct {
	mu  sync.Mutex
	all []string
}

func (l *lines) logger() *slog.Logger { return logs.New(l, logs.Options{Format: "logfmt"}) }

func (l *lines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	_, event, _ := strings.Cut(string(b), " ") // the time
	l.all = append(l.all, event)
	return len(b), nil
}

func (l *lines) get() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.all)
}

func TestLimits(t *testing.T) {
	from := func(as ...string) (conns []*fakeConn, give []any) {
		for _, a := range as {
			c := &fakeConn{from: a}
			conns, give = append(conns, c), append(give, c)
		}
		return conns, give
	}
	for _, c := range []struct {
		name   string
		limits Limits
		from   []string
		refuse []int // which of them
	}{
		{"in all", Limits{All: 2, Each: 9, Source: Network}, []string{"192.0.2.1:1", "192.0.2.2:1", "192.0.2.3:1"}, []int{2}},
		{"of one address", Limits{All: 9, Each: 2, Source: Network}, []string{"192.0.2.1:1", "192.0.2.1:2", "192.0.2.1:3", "192.0.2.2:1"}, []int{2}},
		{"of one address in two spellings", Limits{All: 9, Each: 1, Source: Network}, []string{"192.0.2.1:1", "[::ffff:192.0.2.1]:2"}, []int{1}},
		{"of one /64", Limits{All: 9, Each: 2, Source: Network}, []string{"[2001:db8::1]:1", "[2001:db8::2]:1", "[2001:db8::3]:1", "[2001:db8:0:1::1]:1"}, []int{2}},
		{"of one link", Limits{All: 9, Each: 1, Source: Network}, []string{"[fe80::1%eth0]:1", "[fe80::2%eth1]:1"}, []int{1}},
		{"of one device", Limits{All: 9, Each: 1, Source: Address}, []string{"[fd77::1]:1", "[fd77::2]:1", "[fd77::1]:2"}, []int{2}},
		{"without a bound", Limits{}, []string{"192.0.2.1:1", "192.0.2.1:2"}, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			conns, give := from(c.from...)
			give = append(give, io.EOF)
			l := Limit(newFake(give...), c.limits, slog.New(slog.DiscardHandler))
			var open []net.Conn
			for {
				got, err := l.Accept()
				if err != nil {
					break
				}
				open = append(open, got)
			}
			for i, conn := range conns {
				if conn.closed != slices.Contains(c.refuse, i) {
					t.Errorf("connection %d from %s: closed is %v", i, conn.from, conn.closed)
				}
			}
			// What was closed, once or twice, has made room for one.
			if len(c.refuse) == 0 {
				return
			}
			for _, o := range open {
				o.Close()
				o.Close()
			}
			if b := l.(*listener); b.all != 0 || len(b.by) != 0 {
				t.Errorf("all are closed, and %d are counted, of %v", b.all, b.by)
			}
		})
	}
}

// A flood is one line at once and then one a minute; when it ends, so do the lines.
func TestFloodIsOneLineAMinute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log lines
		f := &fake{give: make(chan any), closed: make(chan struct{})}
		l := Limit(f, Limits{Name: "public portal", All: 1, Source: Network}, log.logger())
		go func() {
			for {
				if _, err := l.Accept(); err != nil {
					return
				}
			}
		}()
		for range 130 * 100 { // 130 s
			f.give <- &fakeConn{from: "192.0.2.1:1"}
			time.Sleep(10 * time.Millisecond)
		}
		time.Sleep(time.Hour)
		said := log.get()
		if len(said) != 4 || said[0] != `level=WARN msg="refused connections" what="public portal" count=1 source=192.0.2.1 why="as many are open in all as may be: 1"`+"\n" ||
			!strings.Contains(said[2], " count=600") && !strings.Contains(said[2], " count=599") {
			t.Errorf("%d lines: %q", len(said), said)
		}
		l.Close()
		synctest.Wait()
	})
}

// A host that is short of descriptors is waited for, without a line for each try; any other
// failure is the server's.
func TestShortOfDescriptors(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log lines
		var give []any
		for range 100 {
			give = append(give, &net.OpError{Op: "accept", Err: os.NewSyscallError("accept4", unix.EMFILE)})
		}
		l := Limit(newFake(append(give, &fakeConn{from: "192.0.2.1:1"}, io.ErrUnexpectedEOF)...), Limits{Name: "portal"}, log.logger())
		if _, err := l.Accept(); err != nil {
			t.Fatal(err)
		}
		if said := log.get(); len(said) > 3 || !strings.Contains(said[0], "too many open files") {
			t.Errorf("%d lines: %q", len(said), said)
		}
		if _, err := l.Accept(); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Error(err)
		}
		l.Close()
	})
}

// One that waits for descriptors ends when it is closed.
func TestCloseWhileWaiting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := Limit(newFake(unix.EMFILE, unix.EMFILE), Limits{}, slog.New(slog.DiscardHandler))
		done := make(chan error)
		go func() { _, err := l.Accept(); done <- err }()
		synctest.Wait()
		l.Close()
		if err := <-done; !errors.Is(err, net.ErrClosed) {
			t.Error(err)
		}
	})
}

// Real sockets: a refused one is reset, a unix socket's source is the caller's uid.
func TestSockets(t *testing.T) {
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := Limit(inner, Limits{All: 9, Each: 1, Source: Network}, slog.New(slog.DiscardHandler))
	defer l.Close()
	go func() {
		for {
			if _, err := l.Accept(); err != nil {
				return
			}
		}
	}()
	for i, want := range []error{os.ErrDeadlineExceeded, syscall.ECONNRESET} {
		c, err := net.Dial("tcp", l.Addr().String())
		if err == nil {
			defer c.Close()
			c.SetDeadline(time.Now().Add(time.Second))
			_, err = c.Read(make([]byte, 1))
		}
		if !errors.Is(err, want) {
			t.Errorf("connection %d: %v, want %v", i, err, want)
		}
	}

	path := t.TempDir() + "/s"
	u, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer u.Close()
	go net.Dial("unix", path)
	c, err := Limit(u, Limits{}, slog.New(slog.DiscardHandler)).Accept()
	if err != nil {
		t.Fatal(err)
	}
	if got := User(c); got != fmt.Sprintf("uid %d", os.Geteuid()) {
		t.Errorf("the caller is %q", got)
	}
}

// Whatever the limit is, the shares leave a quarter of it or 256.
func TestShare(t *testing.T) {
	for limit := fewest; limit < 1<<20; limit = limit*5/4 + 1 {
		b := Share(limit)
		// The portal's sockets inside the tunnel are the linux plane's, the flows' are netstack's.
		sum := b.Public + max(b.Tunnel+relayed*b.Relay, b.Flows) + b.Control + b.WhoIs
		if kept := limit - sum; kept < min(limit/4, 256) {
			t.Errorf("of %d only %d are kept: %+v", limit, kept, b)
		}
		if b.Control < 8 || b.WhoIs < 16 || b.Tunnel < 32 || b.Public < 32 || b.Flows < 32 || b.Relay < 8 {
			t.Errorf("%d: %+v", limit, b)
		}
	}
	if b := Share(20_000); b.Flows < 10_000 {
		t.Errorf("of 20000 descriptors only %d are for flows", b.Flows)
	}
}
