package relay

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/quick"
	"time"

	proxyproto "github.com/pires/go-proxyproto"

	"vpnd/internal/dataplane"
)

var caller = Caller{
	Client: netip.MustParseAddrPort("10.77.0.2:40000"), Service: netip.MustParseAddrPort("10.77.128.1:80"),
	Addr4: netip.MustParseAddr("10.77.0.2"), User: "alice", Device: "laptop",
}

func dialer() *Dialer {
	return &Dialer{
		Local:   func(string, netip.AddrPort, string) error { return nil },
		Own:     func(string, netip.AddrPort) bool { return false },
		Here:    func(netip.Addr) bool { return false },
		Tunnel:  netip.MustParsePrefix("10.77.0.0/16").Contains,
		Gateway: func(netip.Addr) netip.Addr { return netip.Addr{} },
	}
}

// serve answers each connection by f.
func serve(t *testing.T, network, addr string, f func(net.Conn)) net.Listener {
	t.Helper()
	l, err := net.Listen(network, addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go f(c)
		}
	}()
	return l
}

func service(l net.Listener) *dataplane.Service {
	a := l.Addr().(*net.TCPAddr).AddrPort()
	return &dataplane.Service{Name: "wiki", Hosts: []netip.Addr{a.Addr()}, ToPort: a.Port()}
}

func TestStand(t *testing.T) {
	for device, want := range map[string]string{"10.77.0.2": "127.77.0.2", "192.168.5.9": "127.168.5.9", "10.0.0.2": "127.255.0.2", "10.0.1.1": "127.255.1.1"} {
		if got := Stand(netip.MustParseAddr(device)); got != netip.MustParseAddr(want) {
			t.Errorf("%s stands as %s", device, got)
		}
	}
	own := netip.MustParsePrefix("127.0.0.0/16")
	if err := quick.Check(func(b [4]byte) bool {
		a := Stand(netip.AddrFrom4(b))
		return !a.IsValid() || a.IsLoopback() && !own.Contains(a) && a != netip.MustParseAddr("127.255.255.255")
	}, nil); err != nil {
		t.Error(err)
	}
}

// A service on this host sees an address that stands for the device, never the host's own.
func TestLocalTargetSeesTheDevice(t *testing.T) {
	l := serve(t, "tcp4", "127.0.0.1:0", func(c net.Conn) { io.WriteString(c, addrPort(c.RemoteAddr()).Addr().String()); c.Close() })
	d, s := dialer(), service(l)
	c, err := d.Dial(t.Context(), "tcp", s, caller)
	if err != nil {
		t.Fatal(err)
	}
	if b, _ := io.ReadAll(c); string(b) != "127.77.0.2" {
		t.Errorf("it sees %q", b)
	}
	nobody := caller
	nobody.Addr4 = netip.Addr{}
	if _, err := d.Dial(t.Context(), "tcp", s, nobody); !errors.Is(err, ErrUndialable) {
		t.Errorf("without an address that stands for the device: %v", err)
	}
	not := errors.New("not listed")
	d.Local = func(string, netip.AddrPort, string) error { return not }
	if _, err := d.Dial(t.Context(), "tcp", s, caller); !errors.Is(err, not) {
		t.Errorf("not listed: %v", err)
	}
	d.Local = nil
	if _, err := d.Dial(t.Context(), "tcp", s, caller); !errors.Is(err, ErrUndialable) {
		t.Errorf("with no list: %v", err)
	}
}

func TestNeverDialled(t *testing.T) {
	d := dialer()
	d.Own = func(_ string, a netip.AddrPort) bool { return a == netip.MustParseAddrPort("192.0.2.1:8443") }
	for _, a := range []string{"0.0.0.0:80", "[::]:80", "[::1]:80", "169.254.1.1:80", "[fe80::1]:80", "224.0.0.1:80", "255.255.255.255:80", "10.77.0.3:80", "192.0.2.1:8443"} {
		at := netip.MustParseAddrPort(a)
		if c, err := d.Dial(t.Context(), "tcp", &dataplane.Service{Hosts: []netip.Addr{at.Addr()}, ToPort: at.Port()}, caller); !errors.Is(err, ErrUndialable) {
			t.Errorf("%s: %v, %v", a, c, err)
		}
	}
	if _, err := d.Dial(t.Context(), "tcp", &dataplane.Service{}, caller); !errors.Is(err, ErrUnknown) {
		t.Errorf("unknown: %v", err)
	}
}

// The addresses of a target are tried in turn.
func TestNextAddress(t *testing.T) {
	l := serve(t, "tcp4", "127.0.0.1:0", func(c net.Conn) { c.Close() })
	s := service(l)
	s.Hosts = append([]netip.Addr{netip.MustParseAddr("127.0.0.9")}, s.Hosts...)
	c, err := dialer().Dial(t.Context(), "tcp", s, caller)
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
}

func TestUnixAndProxy(t *testing.T) {
	path := filepath.Join(t.TempDir(), "app.sock")
	said := make(chan string, 1)
	serve(t, "unix", path, func(c net.Conn) {
		h, err := proxyproto.Read(bufio.NewReader(c))
		if err != nil {
			said <- err.Error()
			return
		}
		list, _ := h.TLVs()
		out := []string{h.SourceAddr.String(), h.DestinationAddr.String()}
		for _, x := range list {
			out = append(out, string(x.Value))
		}
		said <- strings.Join(out, " ")
	})
	d := dialer()
	var asked atomic.Value
	d.Local = func(_ string, _ netip.AddrPort, path string) error { asked.Store(path); return nil }
	c, err := d.Dial(t.Context(), "tcp", &dataplane.Service{Path: path, ProxyV2: true}, caller)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if got := <-said; got != "10.77.0.2:40000 10.77.128.1:80 alice laptop" {
		t.Errorf("it is told %s", got)
	}
	if asked.Load() != path {
		t.Errorf("asked was for %v", asked.Load())
	}
	if _, err := d.Dial(t.Context(), "tcp", &dataplane.Service{Path: path + "x"}, caller); !errors.Is(err, syscall.ENOENT) || !strings.Contains(err.Error(), "sandbox") {
		t.Errorf("no such socket: %v", err)
	}
}

// relayTo starts a relay to a service and gives its address.
func relayTo(t *testing.T, s *dataplane.Service, most int) string {
	t.Helper()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	d := dialer()
	r := &TCP{Listener: l, Most: most,
		Find: func(net.Conn) (netip.AddrPort, bool) { return caller.Service, true },
		Open: func(ctx context.Context, client, service netip.AddrPort) (net.Conn, error) {
			return d.Dial(ctx, "tcp", s, caller)
		}}
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(func() { cancel(); l.Close() })
	go r.Serve(ctx)
	return l.Addr().String()
}

// Each direction ends by itself.
func TestHalfCloses(t *testing.T) {
	l := serve(t, "tcp4", "127.0.0.1:0", func(c net.Conn) {
		b, _ := io.ReadAll(c) // until the client has ended its own
		c.Write(append([]byte("got "), b...))
		c.Close()
	})
	c, err := net.Dial("tcp", relayTo(t, service(l), 10))
	if err != nil {
		t.Fatal(err)
	}
	io.WriteString(c, strings.Repeat("x", 1<<20))
	c.(*net.TCPConn).CloseWrite()
	if b, err := io.ReadAll(c); err != nil || len(b) != 4+1<<20 {
		t.Errorf("%d bytes came, %v", len(b), err)
	}
}

func TestResets(t *testing.T) {
	reset := func(addr string) error {
		c, err := net.Dial("tcp", addr)
		if err != nil {
			return err
		}
		defer c.Close()
		c.SetReadDeadline(time.Now().Add(10 * time.Second))
		_, err = c.Read(make([]byte, 1))
		return err
	}
	if err := reset(relayTo(t, &dataplane.Service{Hosts: []netip.Addr{netip.MustParseAddr("127.0.0.1")}, ToPort: 1}, 10)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("where nobody listens: %v", err)
	}
	l := serve(t, "tcp4", "127.0.0.1:0", func(c net.Conn) { Reset(c) })
	if err := reset(relayTo(t, service(l), 10)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("reset by the target: %v", err)
	}
	l = serve(t, "tcp4", "127.0.0.1:0", func(c net.Conn) { io.Copy(io.Discard, c) })
	at := relayTo(t, service(l), 4) // and one of a client
	c, err := net.Dial("tcp", at)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	io.WriteString(c, "x")
	time.Sleep(50 * time.Millisecond)
	if err := reset(at); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("one too many: %v", err)
	}
}

func TestUDP(t *testing.T) {
	echo := func(prefix string) netip.AddrPort {
		p, err := net.ListenPacket("udp4", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { p.Close() })
		go func() {
			b := make([]byte, 2048)
			for {
				n, from, err := p.ReadFrom(b)
				if err != nil {
					return
				}
				p.WriteTo([]byte(prefix+string(b[:n])+" of "+addrPort(from).Addr().String()), from)
			}
		}()
		return addrPort(p.LocalAddr())
	}
	a, b := echo("a "), echo("b ")
	conn, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(netip.MustParseAddrPort("127.0.0.1:0")))
	if err != nil {
		t.Fatal(err)
	}
	var now atomic.Value
	now.Store(a)
	d := dialer()
	u := &UDP{Conn: conn, Most: 8,
		Find: func(netip.AddrPort) (netip.AddrPort, bool) {
			p := now.Load().(netip.AddrPort)
			return p, p.IsValid()
		},
		Open: func(ctx context.Context, client, at netip.AddrPort) (net.Conn, error) {
			return d.Dial(ctx, "udp", &dataplane.Service{Hosts: []netip.Addr{at.Addr()}, ToPort: at.Port()}, caller)
		}}
	go u.Serve(t.Context())
	c, err := net.Dial("udp", conn.LocalAddr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	ask := func() string {
		io.WriteString(c, "x")
		b := make([]byte, 100)
		c.SetReadDeadline(time.Now().Add(500 * time.Millisecond))
		n, _ := c.Read(b)
		return string(b[:n])
	}
	if got := ask(); got != "a x of 127.77.0.2" {
		t.Errorf("it answers %q", got)
	}
	// Another service, from the same port of the client.
	now.Store(b)
	time.Sleep(lookAgain + 10*time.Millisecond)
	if got := ask(); got != "b x of 127.77.0.2" {
		t.Errorf("it answers %q", got)
	}
	now.Store(netip.AddrPort{}) // cut
	time.Sleep(lookAgain + 10*time.Millisecond)
	if got := ask(); got != "" {
		t.Errorf("cut, it answers %q", got)
	}
}

func TestUDPIdle(t *testing.T) {
	begun := time.Now()
	f := &udpFlow{begun: begun, seen: begun}
	if f.idle(begun.Add(UDPIdle)) || !f.idle(begun.Add(UDPIdle+1)) {
		t.Error("a flow without an answer")
	}
	f.touch(begun.Add(UDPYoung+1), true)
	if f.idle(begun.Add(UDPYoung+1+UDPStreamIdle)) || !f.idle(begun.Add(UDPYoung+2+UDPStreamIdle)) {
		t.Error("a stream")
	}
}
