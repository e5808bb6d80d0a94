package netstack

import (
	"bytes"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	wgnet "golang.zx2c4.com/wireguard/tun/netstack"

	"vpnd/internal/dataplane"
)

// serveTunnel answers TCP connections and datagrams on a client's own address.
func serveTunnel(t testing.TB, n *wgnet.Net, addr string, serve func(net.Conn)) {
	t.Helper()
	l, err := n.ListenTCPAddrPort(ap(addr))
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
			go serve(c)
		}
	}()
	u, err := n.ListenUDPAddrPort(ap(addr))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { u.Close() })
	go func() {
		b := make([]byte, 64<<10)
		for {
			k, from, err := u.ReadFrom(b)
			if err != nil {
				return
			}
			u.WriteTo(b[:k], from)
		}
	}()
}

// Devices reach each other only where it is granted, in the granted direction, while
// both are signed in.
func TestPeerToPeer(t *testing.T) {
	alice, bob := testDevice(2, "alice/laptop"), testDevice(3, "bob/desk")
	g := testGateway(t)
	p := newPlane(t, dataplane.Config{}, dataplane.State{
		Gateway: g, Devices: []dataplane.Device{alice, bob},
		Sessions: []dataplane.Session{signIn(alice, 1, time.Hour), signIn(bob, 2, time.Hour)},
		Rules:    compile(t, grants(), alice, bob),
	})
	a, b := newClient(t, 2, g), newClient(t, 3, g)
	ends := make(chan error, 8)
	for _, addr := range []string{"10.77.0.3:2000", "[fd77::3]:2000"} {
		serveTunnel(t, b, addr, pour(ends))
	}
	for _, addr := range []string{"10.77.0.2:2000", "[fd77::2]:2000"} {
		serveTunnel(t, a, addr, greet)
	}
	// Bob's WireGuard needs a handshake before anyone can reach him: he asks the portal.
	servePortal(t, p)
	if got := get(t, httpClient(b), "http://10.77.0.1/"); !strings.HasPrefix(got, "10.77.0.3") {
		t.Fatal(got)
	}
	targets := []string{"10.77.0.3:2000", "[fd77::3]:2000"}
	for _, to := range targets {
		if _, err := dial(t, a, "tcp", to); err == nil || !strings.Contains(err.Error(), "refused") {
			t.Errorf("%s without a grant: %v, want refused", to, err)
		}
		if got, err := exchange(mustDial(t, a, "udp", to), "x", 200*time.Millisecond); err == nil {
			t.Errorf("UDP %s without a grant: %q", to, got)
		}
	}
	rules := compile(t, grants("alice -> bob *"), alice, bob)
	update(t, p, dataplane.Change{Rules: rules})
	for _, to := range targets {
		if got, err := exchange(mustDial(t, a, "udp", to), "x", 2*time.Second); got != "x" {
			t.Errorf("UDP %s: %q, %v", to, got, err)
		}
		big := strings.Repeat("y", 5000) // fragments
		if got, err := exchange(mustDial(t, a, "udp", to), big, 2*time.Second); got != big {
			t.Errorf("UDP %s: 5000 bytes came back as %d, %v", to, len(got), err)
		}
	}
	for _, back := range []string{"10.77.0.2:2000", "[fd77::2]:2000"} {
		if _, err := dial(t, b, "tcp", back); err == nil {
			t.Errorf("%s: the grant works backwards", back)
		}
	}
	streams := []func() error{stream(t, a, targets[0]), stream(t, a, targets[1])}
	// Bob signs out: Alice's flows to him are dead.
	update(t, p, dataplane.Change{EndSessions: []dataplane.Session{{Addrs: bob.Addrs}}})
	if fs := p.flows.of(alice.Addrs); len(fs) != 0 {
		t.Errorf("%d flows of Alice's left after Bob's session", len(fs))
	}
	for i, ended := range streams {
		if err := ended(); err == nil || !strings.Contains(err.Error(), "reset") {
			t.Errorf("%s after Bob's sign-out: %v, want a reset", targets[i], err)
		}
	}
	for range targets {
		select {
		case <-ends:
		case <-time.After(3 * time.Second):
			t.Error("Bob's end was not told")
		}
	}
	if _, err := dial(t, a, "tcp", targets[0]); err == nil {
		t.Error("Bob is reached without a session")
	}
}

// pingOnce sends an echo through a client's tunnel, and again until it is answered:
// the client's PingConn loses a reply that comes before it waits for one.
func pingOnce(t testing.TB, n *wgnet.Net, to netip.Addr, wait time.Duration) error {
	t.Helper()
	network := "ping4"
	if to.Is6() {
		network = "ping6"
	}
	m := append([]byte{8, 0, 0, 0, 0, 7, 0, 9}, "payload"...)
	if to.Is6() {
		m[0] = 128
	}
	const again = 200 * time.Millisecond
	var err error
	for end := time.Now().Add(wait); time.Now().Before(end); {
		var k int
		b := make([]byte, 1500)
		if k, err = pingTry(t, n, network, to, m, b, again); err == nil {
			if !bytes.HasSuffix(b[:k], []byte("payload")) {
				t.Errorf("ping %v: came back as %x", to, b[:k])
			}
			return nil
		}
	}
	return err
}

func pingTry(t testing.TB, n *wgnet.Net, network string, to netip.Addr, m, reply []byte, wait time.Duration) (int, error) {
	t.Helper()
	c, err := n.Dial(network, to.String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Write(m); err != nil {
		return 0, err
	}
	c.SetReadDeadline(time.Now().Add(wait))
	return c.Read(reply)
}

func TestPing(t *testing.T) {
	needResource(t)
	alice, bob := testDevice(2, "alice/laptop"), testDevice(3, "bob/desk")
	g := testGateway(t)
	// The namespace is ours: the sysctl is, too.
	if err := allowPing(); err != nil {
		t.Fatal(err)
	}
	state := dataplane.State{
		Gateway: g, Devices: []dataplane.Device{alice, bob},
		Sessions: []dataplane.Session{signIn(alice, 1, time.Hour), signIn(bob, 2, time.Hour)},
		Rules:    compile(t, grants("alice -> * icmp"), alice, bob),
	}
	p := newPlane(t, dataplane.Config{}, state)
	servePortal(t, p)
	a, b := newClient(t, 2, g), newClient(t, 3, g)
	get(t, httpClient(b), "http://10.77.0.1/")
	for _, to := range []netip.Addr{gateway4, gateway6, res4, res6, bob.Addrs[0], bob.Addrs[1]} {
		if err := pingOnce(t, a, to, 5*time.Second); err != nil {
			t.Errorf("ping %v: %v", to, err)
		}
	}
	if err := pingOnce(t, a, netip.MustParseAddr("127.0.0.1"), 500*time.Millisecond); err == nil {
		t.Error("loopback answers a ping")
	}
	update(t, p, dataplane.Change{EndSessions: []dataplane.Session{{Addrs: alice.Addrs}}})
	for _, to := range []netip.Addr{gateway4, gateway6, res4, res6, bob.Addrs[0], bob.Addrs[1]} {
		if err := pingOnce(t, a, to, 500*time.Millisecond); err == nil {
			t.Errorf("ping %v is answered without a session", to)
		}
	}
}

// An echo to a resource is carried where it is granted and a family's echoes can be carried,
// and else refused.
func TestPingNeedsGrantAndSocket(t *testing.T) {
	alice := testDevice(2, "alice/laptop")
	for _, can := range []pingSupport{{}, {v4: true}, {v6: true}, {v4: true, v6: true}} {
		p := offline(t, grants("alice -> 192.0.2.0/24 icmp", "alice -> 2001:db8:2::/64 icmp"), alice)
		if err := p.putSession(signIn(alice, 1, time.Hour)); err != nil {
			t.Fatal(err)
		}
		p.canPing = can
		for _, x := range []struct {
			src, granted, ungranted string
			can                     bool
		}{{"10.77.0.2:1", "192.0.2.1", "192.0.3.1", can.v4}, {"[fd77::2]:1", "2001:db8:2::1", "2001:db8:3::1", can.v6}} {
			want := refuse
			if x.can {
				want = ping
			}
			if got := p.judgePacket(t, echoPacket(x.src, x.granted)); got != want {
				t.Errorf("%+v: granted to %s: %v, want %v", can, x.granted, got, want)
			}
			if got := p.judgePacket(t, echoPacket(x.src, x.ungranted)); got != refuse {
				t.Errorf("%+v: not granted to %s: %v", can, x.ungranted, got)
			}
		}
	}
}

// What a cut TCP flow between devices must end: its resets. UDP's ends are told in
// TestCutUDPIsTold.
func TestPeerFlowIsToldOfItsEnd(t *testing.T) {
	alice, bob := testDevice(2, "alice/laptop"), testDevice(3, "bob/desk")
	p := offline(t, grants("alice -> bob tcp:22", "alice -> bob udp:22"), alice, bob)
	for _, s := range []dataplane.Session{signIn(alice, 1, time.Hour), signIn(bob, 2, time.Hour)} {
		if err := p.putSession(s); err != nil {
			t.Fatal(err)
		}
	}
	for _, x := range []struct {
		b    []byte
		want int
	}{{tcpPacket("10.77.0.2:1", "10.77.0.3:22", flagSYN, ""), 1}, {udpPacket("10.77.0.2:1", "10.77.0.3:22", ""), 0}} {
		pk, _ := parse(x.b)
		if _, f := p.inbound(&pk, time.Now()); f == nil || len(f.cutters) != x.want {
			t.Errorf("the flow %+v, want %d to call at its end", f, x.want)
		}
	}
}

// Without the sysctl pings to resources are refused, and Stats says so.
func TestPingNotAllowed(t *testing.T) {
	p, err := New(t.Context(), dataplane.Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	p.canPing = pingSupport{}
	if !strings.Contains(p.detail(), "ping_group_range") {
		t.Errorf("Detail does not say that ping is refused: %q", p.detail())
	}
	if p.pings(res4) || p.pings(res6) {
		t.Error("pings are carried without a socket")
	}
}
