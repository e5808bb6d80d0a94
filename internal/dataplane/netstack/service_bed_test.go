package netstack

import (
	"bytes"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	wgnet "golang.zx2c4.com/wireguard/tun/netstack"

	"vpnd/internal/dataplane"
)

// world is a plane with resources, of which Alice is a client.
type world struct {
	*Plane
	state  dataplane.State
	alice  dataplane.Device
	client *wgnet.Net
}

func allowAll(string, netip.AddrPort, string) error { return nil }

// publish makes a world whose policy has resources and grants; change may set what the policy
// does not say.
func publish(t *testing.T, c dataplane.Config, policy string, change func(map[string]*dataplane.Service)) *world {
	t.Helper()
	needResource(t)
	w := &world{alice: testDevice(2, "alice/laptop")}
	g := testGateway(t)
	w.state = dataplane.State{Gateway: g, Devices: []dataplane.Device{w.alice}, Rules: compile(t, policy, w.alice)}
	w.state.Services = servicesOf(t, w.state)
	if change != nil {
		change(named(w.state.Services))
	}
	w.Plane = newPlane(t, c, w.state)
	servePortal(t, w.Plane)
	w.client = newClient(t, 2, g)
	get(t, httpClient(w.client), "http://10.77.0.1/") // WireGuard's handshake is done
	return w
}

func named(list []dataplane.Service) map[string]*dataplane.Service {
	m := make(map[string]*dataplane.Service)
	for i := range list {
		m[list[i].Name] = &list[i]
	}
	return m
}

func (w *world) signIn(t *testing.T) {
	t.Helper()
	update(t, w.Plane, dataplane.Change{PutSessions: []dataplane.Session{signIn(w.alice, 1, time.Hour)}})
}

// refusedAtOnce wants a reset within 100 ms. A machine that is busy has three tries.
func refusedAtOnce(t *testing.T, n *wgnet.Net, what, addr string) {
	t.Helper()
	for try := 1; ; try++ {
		start := time.Now()
		_, err := dial(t, n, "tcp", addr)
		took := time.Since(start)
		switch {
		case err == nil:
			t.Errorf("%s: connected to %s", what, addr)
		case !strings.Contains(err.Error(), "refused"):
			t.Errorf("%s: %s: %v, want a reset", what, addr, err)
		case took > 100*time.Millisecond && try < 3:
			continue
		case took > 100*time.Millisecond:
			t.Errorf("%s: %s: refused after %v", what, addr, took)
		}
		return
	}
}

// says reads what a service says to whoever connects.
func says(t *testing.T, n *wgnet.Net, addr string) string {
	t.Helper()
	c, err := dial(t, n, "tcp", addr)
	if err != nil {
		return err.Error()
	}
	c.SetReadDeadline(time.Now().Add(5 * time.Second))
	b, err := io.ReadAll(c)
	if err != nil {
		return err.Error()
	}
	return string(b)
}

// onHost listens in the namespace of the plane.
func onHost(t *testing.T, network, addr string, serve func(net.Conn)) string {
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
			go serve(c)
		}
	}()
	return l.Addr().String()
}

// lockedBuffer is a log that is read while it is written.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}
