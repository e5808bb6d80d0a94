package netstack

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"vpnd/internal/dataplane"
)

// A port in use is an error that says what to do, and the plane can be tried again.
func TestPortInUse(t *testing.T) {
	used, err := net.ListenUDP("udp4", nil)
	if err != nil {
		t.Fatal(err)
	}
	g := testGateway(t)
	g.Listen = netip.AddrPortFrom(netip.IPv4Unspecified(), uint16(used.LocalAddr().(*net.UDPAddr).Port))
	p, err := New(t.Context(), dataplane.Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	err = p.Set(t.Context(), dataplane.State{Gateway: g})
	if !errors.Is(err, syscall.EADDRINUSE) || !strings.Contains(err.Error(), "--wireguard") || strings.Contains(err.Error(), "\n") {
		t.Fatalf("Set with a port in use: %v", err)
	}
	used.Close()
	if err := p.Set(t.Context(), dataplane.State{Gateway: g}); err != nil {
		t.Fatalf("Set with the port free again: %v", err)
	}
	// A running plane stays where it is when it cannot move.
	used2, err := net.ListenUDP("udp4", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer used2.Close()
	moved := g
	moved.Listen = netip.AddrPortFrom(netip.IPv4Unspecified(), uint16(used2.LocalAddr().(*net.UDPAddr).Port))
	if err := p.Set(t.Context(), dataplane.State{Gateway: moved}); !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("Set to a port in use: %v", err)
	}
	if c, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(g.Listen)); err == nil {
		c.Close()
		t.Error("the plane does not listen any more")
	}
}

func TestClosedPlane(t *testing.T) {
	g := testGateway(t)
	p := newPlane(t, dataplane.Config{}, dataplane.State{Gateway: g})
	l, err := p.Listen(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := p.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := l.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Accept after Close: %v", err)
	}
	if err := p.Set(t.Context(), dataplane.State{Gateway: g}); !errors.Is(err, ErrClosed) {
		t.Errorf("Set after Close: %v", err)
	}
	if err := p.Update(t.Context(), dataplane.Change{}); !errors.Is(err, ErrClosed) {
		t.Errorf("Update after Close: %v", err)
	}
	c, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(g.Listen))
	if err != nil {
		t.Errorf("the port is still in use after Close: %v", err)
	} else {
		c.Close()
	}
}

// One address to listen on, and Stats that see the client.
func TestListenOnOneAddress(t *testing.T) {
	g := testGateway(t)
	g.Listen = netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), g.Listen.Port())
	alice := testDevice(2, "alice/laptop")
	p := newPlane(t, dataplane.Config{}, dataplane.State{Gateway: g, Devices: []dataplane.Device{alice, testDevice(3, "bob/desk")}})
	servePortal(t, p)
	if got := get(t, httpClient(newClient(t, 2, g)), "http://10.77.0.1/"); !strings.HasPrefix(got, "10.77.0.2 asked") {
		t.Fatal(got)
	}
	s, err := p.Stats(t.Context(), alice.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	got := s.Peers[alice.PublicKey]
	if len(s.Peers) != 1 || !got.Endpoint.Addr().IsLoopback() || time.Since(got.LastHandshake) > time.Minute || got.Received == 0 || got.Sent == 0 {
		t.Errorf("Stats of one key: %+v", s.Peers)
	}
	if s, err = p.Stats(t.Context()); err != nil || len(s.Peers) != 2 || s.Plane != "netstack" || s.Detail == "" {
		t.Errorf("Stats of all: %+v, %v", s, err)
	}
}

// A device's key or address that becomes another's brings no session and no flow along.
func TestNobodyInheritsASession(t *testing.T) {
	alice, bob := testDevice(2, "alice/laptop"), testDevice(3, "bob/desk")
	g := testGateway(t)
	p := newPlane(t, dataplane.Config{}, dataplane.State{
		Gateway: g, Devices: []dataplane.Device{alice}, Sessions: []dataplane.Session{signIn(alice, 1, time.Hour)},
		Rules: compile(t, grants("* -> 192.0.2.0/24 udp"), alice, bob),
	})
	granted := func(from string) bool {
		return p.judgePacket(t, udpPacket(from+":1", "192.0.2.1:53", "")) == deliver
	}
	if !granted("10.77.0.2") {
		t.Fatal("Alice is refused")
	}
	moved := bob
	moved.Addrs = alice.Addrs // Bob's key, Alice's addresses
	update(t, p, dataplane.Change{PutDevices: []dataplane.Device{moved}})
	if granted("10.77.0.2") {
		t.Error("Bob has Alice's session")
	}
	update(t, p, dataplane.Change{PutSessions: []dataplane.Session{signIn(moved, 2, time.Hour)}})
	if !granted("10.77.0.2") {
		t.Fatal("Bob is refused")
	}
	update(t, p, dataplane.Change{PutDevices: []dataplane.Device{bob}}) // and his own addresses
	if granted("10.77.0.3") || p.judgePacket(t, udpPacket("10.77.0.2:1", "192.0.2.1:53", "")) != drop {
		t.Error("a session moved with the key, or stayed with the address")
	}
	if err := p.Update(t.Context(), dataplane.Change{PutSessions: []dataplane.Session{signIn(alice, 3, time.Hour)}}); err == nil {
		t.Error("a session without a device is no error")
	}
}

// A resource that cannot be reached is told as such, without a long wait.
func TestUnreachable(t *testing.T) {
	needResource(t)
	alice := testDevice(2, "alice/laptop")
	g := testGateway(t)
	newPlane(t, dataplane.Config{}, dataplane.State{
		Gateway: g, Devices: []dataplane.Device{alice}, Sessions: []dataplane.Session{signIn(alice, 1, time.Hour)},
		Rules: compile(t, grants("alice -> 203.0.113.0/24 tcp"), alice),
	})
	if err := exec.Command("ip", "route", "replace", "unreachable", "203.0.113.0/24").Run(); err != nil {
		t.Fatal(err)
	}
	n := newClient(t, 2, g)
	start := time.Now()
	if _, err := dial(t, n, "tcp", "203.0.113.5:1"); err == nil || time.Since(start) > 2*time.Second {
		t.Errorf("unreachable: %v after %v", err, time.Since(start))
	}
}

// Resources that never answer use up their device's share of dials and no more.
func TestDialsAreBounded(t *testing.T) {
	needResource(t)
	alice, bob := testDevice(2, "alice/laptop"), testDevice(3, "bob/desk")
	listenTCP(t, "res", at(res4, 1601), greet)
	g := testGateway(t)
	p := newPlane(t, dataplane.Config{}, dataplane.State{
		Gateway: g, Devices: []dataplane.Device{alice, bob},
		Sessions: []dataplane.Session{signIn(alice, 1, time.Hour), signIn(bob, 2, time.Hour)},
		Rules:    compile(t, grants("* -> 198.51.100.0/24 tcp"), alice, bob),
	})
	for port := range maxHandshakes + 200 { // nobody has the address .77: ARP takes seconds
		p.receive(tcpPacket("10.77.0.2:1000", fmt.Sprintf("198.51.100.77:%d", port+1), flagSYN, ""), time.Now())
	}
	if got := p.devices.get(alice.Addrs[0]).dials.Load(); got > maxDials*2 {
		t.Errorf("%d dials at once, want about %d", got, maxDials)
	}
	mustDial(t, newClient(t, 3, g), "tcp", at(res4, 1601))
}
