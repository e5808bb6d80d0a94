package netstack

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	wgnet "golang.zx2c4.com/wireguard/tun/netstack"

	"vpnd/internal/dataplane"
)

// dial opens a connection through the tunnel.
func dial(t testing.TB, n *wgnet.Net, network, addr string) (net.Conn, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	c, err := n.DialContext(ctx, network, addr)
	if err == nil {
		t.Cleanup(func() { c.Close() })
	}
	return c, err
}

func mustDial(t testing.TB, n *wgnet.Net, network, addr string) net.Conn {
	t.Helper()
	c, err := dial(t, n, network, addr)
	if err != nil {
		t.Fatalf("dial %s %s: %v", network, addr, err)
	}
	return c
}

// exchange sends a datagram and returns the answer.
func exchange(c net.Conn, message string, wait time.Duration) (string, error) {
	if _, err := io.WriteString(c, message); err != nil {
		return "", err
	}
	c.SetReadDeadline(time.Now().Add(wait))
	b := make([]byte, 64<<10)
	n, err := c.Read(b)
	return string(b[:n]), err
}

var bothFamilies = []netip.Addr{res4, res6}

func at(a netip.Addr, port uint16) string { return netip.AddrPortFrom(a, port).String() }

func TestTCPToResource(t *testing.T) {
	needResource(t)
	for _, a := range bothFamilies {
		listenTCP(t, "res", at(a, 1001), greet)
		listenTCP(t, "res", at(a, 3001), greet) // not granted
	}
	alice := testDevice(2, "alice/laptop")
	g := testGateway(t)
	rules := compile(t, grants("alice -> 198.51.100.0/24 tcp:1000-2000", "alice -> 2001:db8:51::/64 tcp:1000-2000"), alice)
	p := newPlane(t, dataplane.Config{}, dataplane.State{Gateway: g, Devices: []dataplane.Device{alice}, Rules: rules})
	n := newClient(t, 2, g)
	for _, a := range bothFamilies {
		start := time.Now()
		if _, err := dial(t, n, "tcp", at(a, 1001)); err == nil {
			t.Errorf("%v: connected without a session", a)
		} else if !strings.Contains(err.Error(), "refused") || time.Since(start) > 3*time.Second {
			t.Errorf("%v: without a session: %v after %v, want a reset at once", a, err, time.Since(start))
		}
	}
	update(t, p, dataplane.Change{PutSessions: []dataplane.Session{signIn(alice, 1, time.Hour)}})
	for _, a := range bothFamilies {
		c := mustDial(t, n, "tcp", at(a, 1001))
		b, err := io.ReadAll(c)
		if err != nil || !strings.HasPrefix(string(b), "hello ") {
			t.Errorf("%v: read %q, %v", a, b, err)
		}
		if _, err := dial(t, n, "tcp", at(a, 3001)); err == nil {
			t.Errorf("%v: connected to a port that is not granted", a)
		}
		// Granted, and nobody listens: the host's refusal is the device's.
		if _, err := dial(t, n, "tcp", at(a, 1999)); err == nil || !strings.Contains(err.Error(), "refused") {
			t.Errorf("%v: closed port: %v, want refused", a, err)
		}
	}
}

// stream is a connection to a resource that sends without end. It returns a function
// that waits until no more comes, and says how it ended.
func stream(t testing.TB, n *wgnet.Net, addr string) (ended func() error) {
	t.Helper()
	c := mustDial(t, n, "tcp", addr)
	b := make([]byte, 32<<10)
	if _, err := c.Read(b); err != nil {
		t.Fatalf("stream from %s: %v", addr, err)
	}
	done := make(chan error, 1)
	go func() {
		for {
			if _, err := c.Read(b); err != nil {
				done <- err
				return
			}
		}
	}()
	return func() error {
		select {
		case err := <-done:
			return err
		case <-time.After(3 * time.Second):
			return nil
		}
	}
}

// pour serves a stream without end, and reports how each ended.
func pour(ends chan<- error) func(net.Conn) {
	return func(c net.Conn) {
		defer c.Close()
		b := make([]byte, 8<<10)
		for {
			if _, err := c.Write(b); err != nil {
				ends <- err
				return
			}
			time.Sleep(time.Millisecond)
		}
	}
}

// Each way in which a session or a permission ends cuts both directions of open flows
// of TCP and UDP at once, and both ends are told.
func TestCutMidStream(t *testing.T) {
	needResource(t)
	alice := testDevice(2, "alice/laptop")
	policy := grants("alice -> 198.51.100.0/24 *", "alice -> 2001:db8:51::/64 *")
	for i, test := range []struct {
		name  string
		lasts time.Duration
		end   func(p *Plane, s dataplane.Session) error
	}{
		{"the session expires", 700 * time.Millisecond, nil},
		{"the session is ended", time.Hour, func(p *Plane, s dataplane.Session) error {
			return p.Update(t.Context(), dataplane.Change{EndSessions: []dataplane.Session{s}})
		}},
		{"the device is removed", time.Hour, func(p *Plane, s dataplane.Session) error {
			return p.Update(t.Context(), dataplane.Change{RemoveDevices: []dataplane.Device{alice}, EndSessions: []dataplane.Session{s}})
		}},
		{"the device is removed alone", time.Hour, func(p *Plane, s dataplane.Session) error {
			return p.Update(t.Context(), dataplane.Change{RemoveDevices: []dataplane.Device{alice}})
		}},
		{"the rules change", time.Hour, func(p *Plane, s dataplane.Session) error {
			return p.Update(t.Context(), dataplane.Change{Rules: compile(t, grants("alice -> 198.51.100.7 *"), alice)})
		}},
		{"a new sign-in replaces it", time.Hour, func(p *Plane, s dataplane.Session) error {
			return p.Update(t.Context(), dataplane.Change{PutSessions: []dataplane.Session{signIn(alice, 99, time.Hour)}})
		}},
		{"the session is shortened", time.Hour, func(p *Plane, s dataplane.Session) error {
			s.Until = time.Now().Add(-time.Second)
			return p.Update(t.Context(), dataplane.Change{PutSessions: []dataplane.Session{s}})
		}},
		{"Set without it", time.Hour, func(p *Plane, s dataplane.Session) error {
			return p.Set(t.Context(), dataplane.State{Gateway: gatewayOf(t, p), Devices: []dataplane.Device{alice}, Rules: compile(t, policy, alice)})
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			port := uint16(1100 + i)
			ends := make(chan error, 2)
			for _, a := range bothFamilies {
				listenTCP(t, "res", at(a, port), pour(ends))
				go echoUDP(listenUDP(t, "res", at(a, port)))
			}
			g := testGateway(t)
			p := newPlane(t, dataplane.Config{}, dataplane.State{Gateway: g, Devices: []dataplane.Device{alice}, Rules: compile(t, policy, alice)})
			n := newClient(t, 2, g)
			session := signIn(alice, 1, test.lasts)
			update(t, p, dataplane.Change{PutSessions: []dataplane.Session{session}})
			var streams []func() error
			var datagrams []net.Conn
			for _, a := range bothFamilies {
				streams = append(streams, stream(t, n, at(a, port)))
				c := mustDial(t, n, "udp", at(a, port))
				if got, err := exchange(c, "ping", 2*time.Second); got != "ping" {
					t.Fatalf("UDP before the end: %q, %v", got, err)
				}
				datagrams = append(datagrams, c)
			}
			if test.end != nil {
				if err := test.end(p, session); err != nil {
					t.Fatal(err)
				}
				if fs := p.flows.all(); len(fs) != 0 {
					t.Errorf("%d flows left when Update returned", len(fs))
				}
			} else {
				time.Sleep(time.Until(session.Until) + 20*time.Millisecond)
			}
			for range bothFamilies {
				select {
				case err := <-ends:
					if !errors.Is(err, net.ErrClosed) && !strings.Contains(err.Error(), "reset") && !strings.Contains(err.Error(), "pipe") {
						t.Errorf("the resource's end: %v, want a reset", err)
					}
				case <-time.After(2 * time.Second):
					t.Error("the resource's connection is still open")
				}
			}
			for k, c := range datagrams {
				if strings.HasPrefix(test.name, "a new sign-in") {
					break // a datagram may begin a new flow in the new session
				}
				if got, err := exchange(c, "ping", 200*time.Millisecond); err == nil {
					t.Errorf("UDP over %v after the end: %q", bothFamilies[k], got)
				}
			}
			if strings.HasPrefix(test.name, "the device") {
				return // it cannot be told: its WireGuard peer is gone
			}
			for k, ended := range streams {
				if err := ended(); err == nil {
					t.Errorf("the device's stream over %v is still open", bothFamilies[k])
				} else if !strings.Contains(err.Error(), "reset") {
					t.Errorf("the device's stream over %v ended by %v, want a reset", bothFamilies[k], err)
				}
			}
		})
	}
}

func gatewayOf(t testing.TB, p *Plane) dataplane.Gateway {
	g := testGateway(t)
	g.Listen = p.near.Load().Listen
	return g
}

// A renewal keeps open flows; repeating Set interrupts nothing.
func TestRenewalInterruptsNothing(t *testing.T) {
	needResource(t)
	alice := testDevice(2, "alice/laptop")
	ends := make(chan error, 8)
	listenTCP(t, "res", at(res4, 1201), pour(ends))
	g := testGateway(t)
	state := dataplane.State{Gateway: g, Devices: []dataplane.Device{alice}, Rules: compile(t, grants("alice -> 198.51.100.0/24 *"), alice)}
	session := signIn(alice, 1, 500*time.Millisecond)
	state.Sessions = []dataplane.Session{session}
	p := newPlane(t, dataplane.Config{}, state)
	n := newClient(t, 2, g)
	ended := stream(t, n, at(res4, 1201))
	session.Until = time.Now().Add(time.Hour)
	session.Codes = append(session.Codes, dataplane.Code{Serial: 2, At: time.Now()})
	update(t, p, dataplane.Change{PutSessions: []dataplane.Session{session}})
	state.Sessions = []dataplane.Session{session}
	for range 3 {
		if err := p.Set(t.Context(), state); err != nil {
			t.Fatal(err)
		}
	}
	time.Sleep(700 * time.Millisecond)
	select {
	case err := <-ends:
		t.Fatalf("the stream was cut: %v", err)
	default:
	}
	update(t, p, dataplane.Change{EndSessions: []dataplane.Session{session}})
	if err := ended(); err == nil {
		t.Error("the stream outlives its session")
	}
}

// A grant with freshness closes by itself, so long after the last code, while the session
// goes on: a code in time leaves its flows untouched, a later one opens new flows and
// does not revive the old ones.
func TestFreshness(t *testing.T) {
	needResource(t)
	alice := testDevice(2, "alice/laptop")
	finished := make(chan error, 8)
	for _, a := range bothFamilies {
		listenTCP(t, "res", at(a, 1301), pour(finished))
		go echoUDP(listenUDP(t, "res", at(a, 1301)))
	}
	listenTCP(t, "res", at(res4, 1302), pour(finished))
	g := testGateway(t)
	session := signIn(alice, 1, time.Hour)
	begin := session.Codes[0].At
	session.Codes[0].At = begin.Add(-time.Minute + 4*time.Second)
	p := newPlane(t, dataplane.Config{}, dataplane.State{
		Gateway: g, Devices: []dataplane.Device{alice}, Sessions: []dataplane.Session{session},
		Rules: compile(t, grants("alice -> 198.51.100.0/24 1301 1m", "alice -> 2001:db8:51::/64 1301 1m", "alice -> 198.51.100.0/24 tcp:1302"), alice),
	})
	n := newClient(t, 2, g)
	lasting := stream(t, n, at(res4, 1302))
	var fresh []func() error
	var datagrams []net.Conn
	for _, a := range bothFamilies {
		fresh = append(fresh, stream(t, n, at(a, 1301)))
		datagrams = append(datagrams, mustDial(t, n, "udp", at(a, 1301)))
	}
	echoes := func(c net.Conn) bool {
		got, err := exchange(c, "x", time.Second)
		return err == nil && got == "x"
	}
	for _, c := range datagrams {
		if !echoes(c) {
			t.Error("UDP is refused with a fresh code")
		}
	}
	uncut := func(when string) {
		t.Helper()
		select {
		case err := <-finished:
			t.Errorf("%s: a stream was cut: %v", when, err)
		default:
		}
	}
	// A code before the grant closes.
	session.Codes = append(session.Codes, dataplane.Code{Serial: 2, At: begin.Add(-time.Minute + 8*time.Second)})
	update(t, p, dataplane.Change{PutSessions: []dataplane.Session{session}})
	time.Sleep(time.Until(begin.Add(4500 * time.Millisecond)))
	uncut("the first code is too old, the second is not")
	for _, c := range datagrams {
		if !echoes(c) {
			t.Error("UDP is refused after a code in time")
		}
	}
	time.Sleep(time.Until(begin.Add(8*time.Second + minRecheck)))
	for i, ended := range fresh {
		if ended() == nil {
			t.Errorf("the stream over %v outlives its code's freshness", bothFamilies[i])
		}
		select {
		case <-finished:
		case <-time.After(3 * time.Second):
			t.Errorf("over %v the resource's end is still open", bothFamilies[i])
		}
		if echoes(datagrams[i]) {
			t.Errorf("UDP over %v passes with a stale code", bothFamilies[i])
		}
		if _, err := dial(t, n, "tcp", at(bothFamilies[i], 1301)); err == nil {
			t.Errorf("over %v a stale code opens a flow", bothFamilies[i])
		}
	}
	uncut("the session's other grant")
	session.Codes = append(session.Codes, dataplane.Code{Serial: 3, At: time.Now()})
	update(t, p, dataplane.Change{PutSessions: []dataplane.Session{session}})
	again := stream(t, n, at(res4, 1301))
	if !echoes(datagrams[0]) {
		t.Error("UDP does not begin anew with a new code")
	}
	uncut("the new code")
	update(t, p, dataplane.Change{EndSessions: []dataplane.Session{session}})
	for name, ended := range map[string]func() error{"lasting": lasting, "again": again} {
		if ended() == nil {
			t.Errorf("the stream %q outlives the session", name)
		}
	}
}

func TestUDPLargeDatagrams(t *testing.T) {
	needResource(t)
	alice := testDevice(2, "alice/laptop")
	g := testGateway(t)
	newPlane(t, dataplane.Config{}, dataplane.State{
		Gateway: g, Devices: []dataplane.Device{alice}, Sessions: []dataplane.Session{signIn(alice, 1, time.Hour)},
		Rules: compile(t, grants("alice -> 198.51.100.0/24 udp:1400", "alice -> 2001:db8:51::/64 udp:1400"), alice),
	})
	n := newClient(t, 2, g)
	for _, a := range bothFamilies {
		go echoUDP(listenUDP(t, "res", at(a, 1400)))
		c := mustDial(t, n, "udp", at(a, 1400))
		for _, size := range []int{1, 1300, 1400, 4000, 20000} {
			m := strings.Repeat("x", size)
			if got, err := exchange(c, m, 2*time.Second); got != m {
				t.Errorf("%v: %d bytes came back as %d, %v", a, size, len(got), err)
			}
		}
	}
}

// What the policy grants by mistake is still not dialled.
func TestNeverDialled(t *testing.T) {
	needResource(t)
	alice := testDevice(2, "alice/laptop")
	for _, l := range []string{"127.0.0.1:1500", "[::1]:1500", "0.0.0.0:1501"} {
		n, err := net.Listen("tcp", l)
		if err != nil {
			t.Fatal(err)
		}
		defer n.Close()
		go func() {
			for {
				c, err := n.Accept()
				if err != nil {
					return
				}
				t.Errorf("%v was reached", n.Addr())
				c.Close()
			}
		}()
	}
	g := testGateway(t)
	newPlane(t, dataplane.Config{Own: []netip.AddrPort{ap("0.0.0.0:1501")}}, dataplane.State{
		Gateway: g, Devices: []dataplane.Device{alice}, Sessions: []dataplane.Session{signIn(alice, 1, time.Hour)},
		Rules: compile(t, grants("alice -> 0.0.0.0/0 *", "alice -> ::/0 *"), alice),
	})
	n := newClient(t, 2, g)
	for _, a := range []string{
		"127.0.0.1:1500", "127.1.2.3:1500", "0.0.0.0:1500", "169.254.1.1:1500", "[::1]:1500", "[::7f00:1]:1500",
		"[64:ff9b::7f00:1]:1500", gwOut4.String() + ":1501",
	} {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		if c, err := n.DialContext(ctx, "tcp", a); err == nil {
			t.Errorf("%s was dialled", a)
			c.Close()
		}
		cancel()
	}
}

// The app's port is relayed with the device's address in front.
func TestAppRelay(t *testing.T) {
	needNamespace(t)
	sock := t.TempDir() + "/app.sock"
	l, err := net.Listen("unix", sock)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	heads := make(chan string, 2)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			b := make([]byte, 256)
			n, _ := c.Read(b)
			heads <- string(b[:n])
			fmt.Fprint(c, "the app")
			c.Close()
		}
	}()
	alice := testDevice(2, "alice/laptop")
	g := testGateway(t)
	p := newPlane(t, dataplane.Config{AppPort: 8080, AppSocket: sock}, dataplane.State{
		Gateway: g, Devices: []dataplane.Device{alice},
		Rules: compile(t, grants("alice -> 10.77.0.1 tcp:8080", "alice -> fd77::1 tcp:8080"), alice),
	})
	servePortal(t, p)
	n := newClient(t, 2, g)
	if got := get(t, httpClient(n), "http://10.77.0.1:8080/"); got != "10.77.0.2 asked 10.77.0.1:8080" {
		t.Errorf("without a session: %q, want the portal", got)
	}
	update(t, p, dataplane.Change{PutSessions: []dataplane.Session{signIn(alice, 1, time.Hour)}})
	// PROXY protocol v2: signature, version and command, family, length, addresses, ports.
	const signature = "\r\n\r\n\x00\r\nQUIT\n\x21"
	for addr, want := range map[string]string{
		"10.77.0.1:8080": signature + "\x11\x00\x0c\x0a\x4d\x00\x02\x0a\x4d\x00\x01",
		"[fd77::1]:8080": signature + "\x21\x00\x24\xfd\x77" + strings.Repeat("\x00", 13) + "\x02\xfd\x77",
	} {
		c := mustDial(t, n, "tcp", addr)
		b, err := io.ReadAll(c)
		if string(b) != "the app" {
			t.Errorf("%s: read %q, %v", addr, b, err)
		}
		if got := <-heads; !strings.HasPrefix(got, want) {
			t.Errorf("%s: the app was told %q, want %q", addr, got, want)
		}
	}
}
