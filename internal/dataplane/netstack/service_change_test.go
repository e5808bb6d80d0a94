package netstack

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"testing"
	"time"

	"vpnd/internal/dataplane"
)

// An address that is another resource's now leads to that one alone: what was open to the former
// is cut, also where both are granted, and until the policy is the new one it leads nowhere.
func TestServiceAddressPassesOn(t *testing.T) {
	const both = `{"resources": {%q: {"to": "198.51.100.2:5600"}, "other": {"to": "198.51.100.2:5601"}},
		"grants": [{"src": ["alice"], "dst": [%q, "other"]}]}`
	w := publish(t, dataplane.Config{}, fmt.Sprintf(both, "former", "former"), nil)
	ended := make(chan error, 2)
	listenTCP(t, "res", "198.51.100.2:5600", func(c net.Conn) {
		io.WriteString(c, "here")
		_, err := c.Read(make([]byte, 1))
		ended <- err
	})
	w.signIn(t)
	c := mustDial(t, w.client, "tcp", "10.77.128.1:5600")
	if _, err := io.ReadFull(c, make([]byte, 4)); err != nil {
		t.Fatal(err)
	}
	next := dataplane.State{Rules: compile(t, fmt.Sprintf(both, "latter", "latter"), w.alice)}
	next.Services = servicesOf(t, next)
	found := byAddress(next.Services)
	if gone := w.withdraw(found); !gone || w.service(netip.MustParseAddr("10.77.128.1")) != nil || w.service(netip.MustParseAddr("10.77.128.2")) == nil {
		t.Error("before the policy is the new one, the address leads somewhere")
	}
	refusedAtOnce(t, w.client, "until the policy is the new one", "10.77.128.1:5600")
	update(t, w.Plane, dataplane.Change{Rules: next.Rules, Services: next.Services})
	select {
	case err := <-ended:
		if err == nil || errors.Is(err, io.EOF) {
			t.Errorf("the former's server is told %v, want a reset", err)
		}
	case <-time.After(time.Second):
		t.Error("the former's flow is still open")
	}
	f := &flow{key: flowKey{proto: protoTCP, dst: netip.MustParseAddrPort("10.77.128.1:5600")}, service: "former"}
	if s := w.called(f); s != nil {
		t.Errorf("a flow to the former would be called %q", s.Name)
	}
	if _, err := io.ReadFull(mustDial(t, w.client, "tcp", "10.77.128.1:5600"), make([]byte, 4)); err != nil {
		t.Errorf("the latter: %v", err)
	}
}

// A service that is gone is cut though the policy still grants it, and Permits says what a flow
// would meet.
func TestServicePermits(t *testing.T) {
	w := publish(t, dataplane.Config{}, `{"resources": {
		"dark":  {"to": "nas.lan:445"},
		"far":   {"to": "198.51.100.2:5700"},
		"local": {"to": "localhost:5700"},
	}, "grants": [{"src": ["alice"], "dst": ["dark", "far", "local"]}]}`, nil)
	ended := make(chan error, 1)
	listenTCP(t, "res", "198.51.100.2:5700", func(c net.Conn) {
		io.WriteString(c, "here")
		_, err := c.Read(make([]byte, 1))
		ended <- err
	})
	permits := func(what, dst string, proto uint8, port uint16, want bool) {
		t.Helper()
		f := dataplane.Flow{Src: w.alice.Addrs[0], Dst: netip.MustParseAddr(dst), Proto: proto, DstPort: port}
		if got, err := w.Permits(t.Context(), f); err != nil || got != want {
			t.Errorf("%s: %v, %v, want %v", what, got, err, want)
		}
	}
	permits("no session", "10.77.128.2", protoTCP, 5700, false)
	w.signIn(t)
	permits("granted", "10.77.128.2", protoTCP, 5700, true)
	permits("no UDP is published", "10.77.128.2", protoUDP, 5700, false)
	permits("another port", "10.77.128.2", protoTCP, 5701, false)
	permits("ping", "10.77.128.2", protoICMP, 0, false)
	permits("no target is known", "10.77.128.1", protoTCP, 445, false)
	permits("nothing of this host is permitted", "10.77.128.3", protoTCP, 5700, false)
	permits("the target as such", "198.51.100.2", protoTCP, 5700, false)
	c := mustDial(t, w.client, "tcp", "10.77.128.2:5700")
	if _, err := io.ReadFull(c, make([]byte, 4)); err != nil {
		t.Fatal(err)
	}
	for range 2 { // Set again and again interrupts nothing
		s := w.state
		s.Sessions = []dataplane.Session{signIn(w.alice, 1, time.Hour)}
		if err := w.Set(t.Context(), s); err != nil {
			t.Fatal(err)
		}
	}
	select {
	case err := <-ended:
		t.Fatalf("by Set the flow has ended: %v", err)
	case <-time.After(100 * time.Millisecond):
	}
	update(t, w.Plane, dataplane.Change{Services: []dataplane.Service{}})
	select {
	case err := <-ended:
		if err == nil || errors.Is(err, io.EOF) {
			t.Errorf("the server is told %v, want a reset", err)
		}
	case <-time.After(time.Second):
		t.Error("the flow to what is not published any more is open")
	}
	permits("not published any more", "10.77.128.2", protoTCP, 5700, false)
}
