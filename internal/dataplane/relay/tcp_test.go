package relay

import (
	"bufio"
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	proxyproto "github.com/pires/go-proxyproto"
)

// Each side's end is carried alone, whichever comes first.
func TestHalfCloses(t *testing.T) {
	r := newRelay(t, anyLocal())
	for _, network := range []string{"tcp4", "unix"} {
		address := "127.0.0.1:0"
		if network == "unix" {
			address = filepath.Join(t.TempDir(), "s")
		}
		l := listen(t, network, address)
		target := Target{Path: address}
		if network != "unix" {
			target = Target{Addrs: []netip.AddrPort{portOf(l.Addr())}}
		}
		for _, first := range []string{"client", "server"} {
			client, done := call(t, r, caller, target)
			server := accept(t, l).(Stream)
			write(t, client, "hello")
			read(t, server, "hello")
			a, b := Stream(client), server
			if first == "server" {
				a, b = b, a
			}
			write(t, a, "last")
			a.CloseWrite()
			read(t, b, "last")
			wantEOF(t, b)
			write(t, b, strings.Repeat("answer", 100000))
			b.CloseWrite()
			read(t, a, strings.Repeat("answer", 100000))
			wantEOF(t, a)
			if err := wait(t, done); err != nil {
				t.Errorf("%s, %s first: %v", network, first, err)
			}
			if n := r.Len(); n != 0 {
				t.Errorf("%d flows are left", n)
			}
		}
	}
}

func TestRefusalIsToldByReset(t *testing.T) {
	r := newRelay(t, anyLocal())
	l := listen(t, "tcp4", "127.0.0.1:0")
	l.Close()
	client, done := call(t, r, caller, Target{Addrs: []netip.AddrPort{portOf(l.Addr())}})
	wantReset(t, client)
	if err := wait(t, done); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("%v, want connection refused", err)
	}
}

// What one end resets, the other end sees as a reset.
func TestResetsPass(t *testing.T) {
	r := newRelay(t, anyLocal())
	l := listen(t, "tcp4", "127.0.0.1:0")
	for _, who := range []string{"client", "server"} {
		client, done := call(t, r, caller, Target{Addrs: []netip.AddrPort{portOf(l.Addr())}})
		server := accept(t, l).(*net.TCPConn)
		write(t, client, "x")
		read(t, server, "x")
		a, b := client, server
		if who == "server" {
			a, b = b, a
		}
		a.SetLinger(0)
		a.Close()
		wantReset(t, b)
		if err := wait(t, done); err == nil {
			t.Errorf("%s: no error", who)
		}
	}
}

// A cut is told to both ends at once, also while one does not read and the other waits.
func TestCut(t *testing.T) {
	r := newRelay(t, anyLocal())
	l := listen(t, "tcp4", "127.0.0.1:0")
	target := Target{Addrs: []netip.AddrPort{portOf(l.Addr())}}
	other := caller
	other.Client = netip.MustParseAddrPort("10.77.0.3:40000")
	kept, _ := call(t, r, other, target)
	keptServer := accept(t, l)
	for _, how := range []string{"address", "predicate", "while bytes wait"} {
		client, done := call(t, r, caller, target)
		server := accept(t, l)
		write(t, client, "x")
		read(t, server, "x")
		if how == "while bytes wait" {
			client.SetWriteDeadline(time.Now().Add(300 * time.Millisecond))
			for {
				if _, err := client.Write(make([]byte, 1<<20)); err != nil {
					break
				}
			}
		}
		start, n := time.Now(), 0
		if how == "predicate" {
			n = r.Cut(func(c Caller) bool { return c.Client == caller.Client })
		} else {
			n = r.CutClients(caller.Client.Addr())
		}
		wantReset(t, client)
		if how != "while bytes wait" { // then the server would have to read them first
			wantReset(t, server)
		}
		if err := wait(t, done); n != 1 || !errors.Is(err, ErrCut) || time.Since(start) > 500*time.Millisecond {
			t.Errorf("%s: %d cut, %v after %v", how, n, err, time.Since(start))
		}
	}
	write(t, kept, "still")
	read(t, keptServer, "still")
}

// What was cut before it could be is not carried.
func TestAlive(t *testing.T) {
	o := anyLocal()
	o.Alive = func(Caller) bool { return false }
	r := newRelay(t, o)
	l := listen(t, "tcp4", "127.0.0.1:0")
	client, done := call(t, r, caller, Target{Addrs: []netip.AddrPort{portOf(l.Addr())}})
	wantReset(t, client)
	if err := wait(t, done); !errors.Is(err, ErrCut) || r.Len() != 0 {
		t.Errorf("%v, %d flows", err, r.Len())
	}
}

func TestLimits(t *testing.T) {
	o := anyLocal()
	o.Flows, o.PerDevice = 3, 2
	r := newRelay(t, o)
	l := listen(t, "tcp4", "127.0.0.1:0")
	target := Target{Addrs: []netip.AddrPort{portOf(l.Addr())}}
	from := func(s string) Caller {
		c := caller
		c.Client, c.Tunnel = netip.MustParseAddrPort(s), netip.MustParseAddrPort(s).Addr()
		return c
	}
	six := from("[fd77::2]:1")
	six.Tunnel = caller.Tunnel // the same device by its other address
	first, firstDone := call(t, r, from("10.77.0.2:1"), target)
	accept(t, l)
	call(t, r, six, target)
	accept(t, l)
	refused := func(c Caller) {
		t.Helper()
		client, done := call(t, r, c, target)
		wantReset(t, client)
		if err := wait(t, done); !errors.Is(err, ErrTooMany) {
			t.Errorf("%v, want too many", err)
		}
	}
	refused(from("10.77.0.2:3"))
	call(t, r, from("10.77.0.3:1"), target)
	accept(t, l)
	refused(from("10.77.0.4:1"))
	first.SetLinger(0)
	first.Close()
	wait(t, firstDone)
	client, _ := call(t, r, from("10.77.0.4:1"), target)
	write(t, client, "room")
	read(t, accept(t, l), "room")
}

func TestProxyHeader(t *testing.T) {
	r := newRelay(t, anyLocal())
	six := caller
	six.Client, six.Service = netip.MustParseAddrPort("[fd77::2]:40000"), netip.MustParseAddrPort("[fd77::8000:5]:80")
	mixed := caller
	mixed.Service = six.Service
	mapped := caller
	mapped.Client = netip.AddrPortFrom(netip.AddrFrom16(caller.Client.Addr().As16()), 40000)
	mapped.User = "Zoë ☃"
	path := filepath.Join(t.TempDir(), "s")
	for _, l := range []net.Listener{listen(t, "tcp4", "127.0.0.1:0"), listen(t, "unix", path)} {
		for name, c := range map[string]Caller{"IPv4": caller, "IPv6": six, "mixed": mixed, "mapped": mapped} {
			target := Target{ProxyV2: true, Path: path}
			if l.Addr().Network() == "tcp" {
				target = Target{ProxyV2: true, Addrs: []netip.AddrPort{portOf(l.Addr())}}
			}
			client, _ := call(t, r, c, target)
			write(t, client, "then this")
			server := bufio.NewReader(accept(t, l))
			h, err := proxyproto.Read(server)
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			from, to, ok := h.TCPAddrs()
			if !ok || unmap(from.AddrPort()) != unmap(c.Client) || unmap(to.AddrPort()) != c.Service {
				t.Errorf("%s: from %v to %v", name, from, to)
			}
			want := proxyproto.TCPv4
			if name == "IPv6" || name == "mixed" {
				want = proxyproto.TCPv6
			}
			tlvs, err := h.TLVs()
			if err != nil || h.TransportProtocol != want || len(tlvs) != 2 ||
				tlvs[0].Type != 0xE0 || string(tlvs[0].Value) != c.User || tlvs[1].Type != 0xE1 || string(tlvs[1].Value) != c.Device {
				t.Errorf("%s: %v, %v, %v", name, h.TransportProtocol, tlvs, err)
			}
			b := make([]byte, 9)
			if _, err := server.Read(b); err != nil || string(b) != "then this" {
				t.Errorf("%s: %q, %v behind it", name, b, err)
			}
			client.Close()
		}
	}
	nobody := caller
	nobody.User, nobody.Device = "", ""
	if b, err := ProxyHeader(nobody); err != nil || len(b) != 16+12 {
		t.Errorf("without names: %d bytes, %v", len(b), err)
	}
	nobody.User = strings.Repeat("x", 1<<16)
	if _, err := ProxyHeader(nobody); err == nil {
		t.Error("a name that has no room is told")
	}
}

// fakeStream is a client whose handshake is complete.
type fakeStream struct {
	net.Conn
	aborted bool
}

func (f *fakeStream) CloseWrite() error { return nil }
func (f *fakeStream) Abort()            { f.aborted = true }

func newFake() *fakeStream {
	c, _ := net.Pipe()
	return &fakeStream{Conn: c}
}

func TestDialEnds(t *testing.T) {
	for name, test := range map[string]struct {
		target Target
		cut    time.Duration
		want   time.Duration
		tried  int
	}{
		"silence":           {target: Target{Addrs: []netip.AddrPort{netip.MustParseAddrPort("192.0.2.9:1")}}, want: dialTimeout, tried: 1},
		"silence of two":    {target: Target{Addrs: []netip.AddrPort{netip.MustParseAddrPort("192.0.2.9:1"), netip.MustParseAddrPort("192.0.2.8:1")}}, want: dialTimeout, tried: 2},
		"cut while dialled": {target: Target{Addrs: []netip.AddrPort{netip.MustParseAddrPort("192.0.2.9:1")}}, cut: time.Second, want: time.Second, tried: 1},
		"nobody knows":      {},
	} {
		synctest.Test(t, func(t *testing.T) {
			tried := 0
			r := New(Options{dial: func(ctx context.Context, _ string, _ netip.Addr, _ netip.AddrPort) (net.Conn, error) {
				tried++
				<-ctx.Done()
				return nil, ctx.Err()
			}})
			client, start := newFake(), time.Now()
			if test.cut != 0 {
				time.AfterFunc(test.cut, func() { r.CutClients(caller.Client.Addr()) })
			}
			err := r.ServeTCP(t.Context(), client, caller, test.target)
			if err == nil || time.Since(start) != test.want || !client.aborted || tried != test.tried || r.Len() != 0 {
				t.Errorf("%s: %v after %v, reset %v, %d tried, %d flows", name, err, time.Since(start), client.aborted, tried, r.Len())
			}
			if (test.cut != 0) != errors.Is(err, ErrCut) || test.want == dialTimeout != Timeout(err) {
				t.Errorf("%s: %v", name, err)
			}
		})
	}
}

// The address that answered is tried first the next time.
func TestAddressesInTurn(t *testing.T) {
	var tried []netip.AddrPort
	works := netip.MustParseAddrPort("198.51.100.2:1")
	r := New(Options{dial: func(_ context.Context, _ string, from netip.Addr, to netip.AddrPort) (net.Conn, error) {
		tried = append(tried, to)
		if from.IsValid() {
			t.Errorf("%v is called from %v", to, from)
		}
		if to == works {
			return newFake(), nil
		}
		return nil, os.ErrDeadlineExceeded
	}})
	dead, other := netip.MustParseAddrPort("198.51.100.1:1"), netip.MustParseAddrPort("198.51.100.3:1")
	for i, want := range [][]netip.AddrPort{{dead, other, works}, {works}, {works}} {
		tried = nil
		f, err := r.Begin(caller)
		if err != nil {
			t.Fatal(err)
		}
		if err := f.Dial(t.Context(), Target{Addrs: []netip.AddrPort{dead, other, works}}); err != nil {
			t.Fatal(err)
		}
		f.Cut()
		if len(tried) != len(want) || tried[0] != want[0] {
			t.Errorf("time %d: %v, want %v", i, tried, want)
		}
	}
	tried, works = nil, dead // the target moved: what is remembered is no address of it
	f, _ := r.Begin(caller)
	if err := f.Dial(t.Context(), Target{Addrs: []netip.AddrPort{dead, other}}); err != nil || len(tried) != 1 {
		t.Errorf("%v, %v", tried, err)
	}
}
