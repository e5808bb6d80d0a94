package netstack

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"
	"time"

	proxyproto "github.com/pires/go-proxyproto"

	"vpnd/internal/dataplane"
)

const servicePolicy = `{
	"resources": {
		"db":    {"to": "198.51.100.2:5432"},
		"local": {"to": "http://localhost:3000"},
		"names": {"to": "198.51.100.2", "ports": ["udp:53", "tcp:1-100"]},
		"six":   {"to": "[2001:db8:51::2]:5433"},
		"sock":  {"to": "unix:/run/x.sock", "port": 90, "proxy": "v2"},
	},
	"grants": [{"src": ["alice"], "dst": ["db", "local", "names", "six", "sock"]}, {"src": ["bob"], "dst": ["names"], "mfa": "off"}],
}`

// servicesOf are the services of servicePolicy's Ruleset, with their targets.
func servicesOf(t testing.TB, s dataplane.State) []dataplane.Service {
	t.Helper()
	var list []dataplane.Service
	p := s.Rules.Policy()
	for i, name := range p.Resources() {
		r := p.Resource(name)
		x := dataplane.Service{Name: name, Ports: r.Ports, ToPort: r.ToPort, Path: r.To.Path, ProxyV2: r.ProxyV2,
			Addrs: []netip.Addr{netip.MustParseAddr(fmt.Sprintf("10.77.128.%d", i+1)), netip.MustParseAddr(fmt.Sprintf("fd77::8000:0:0:%x", i+1))}}
		switch {
		case r.To.Addr.IsValid():
			x.Hosts = []netip.Addr{r.To.Addr}
		case r.To.Loopback():
			x.Hosts = []netip.Addr{netip.MustParseAddr("127.0.0.1")}
		}
		list = append(list, x)
	}
	return list
}

func TestServices(t *testing.T) {
	needResource(t)
	listenTCP(t, "res", "198.51.100.2:5432", greet)
	listenTCP(t, "res", "[2001:db8:51::2]:5433", greet)
	go echoUDP(listenUDP(t, "res", "198.51.100.2:53"))
	local, err := net.Listen("tcp", "127.0.0.1:3000")
	if err != nil {
		t.Fatal(err)
	}
	defer local.Close()
	go func() {
		for {
			c, err := local.Accept()
			if err != nil {
				return
			}
			greet(c)
		}
	}()
	path := filepath.Join(t.TempDir(), "x.sock")
	sock, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer sock.Close()
	go func() {
		c, err := sock.Accept()
		if err != nil {
			return
		}
		h, err := proxyproto.Read(bufio.NewReader(c))
		if err == nil {
			tlvs, _ := h.TLVs()
			fmt.Fprintf(c, "%s to %s, %s on %s", h.SourceAddr, h.DestinationAddr, tlvs[0].Value, tlvs[1].Value)
		}
		c.Close()
	}()

	alice, bob := testDevice(2, "alice/laptop"), testDevice(3, "bob/phone")
	g := testGateway(t)
	s := dataplane.State{Gateway: g, Devices: []dataplane.Device{alice, bob}, Rules: compile(t, servicePolicy, alice, bob)}
	s.Services = servicesOf(t, s)
	s.Services[4].Path = path
	denied := errors.New("not listed")
	allow := true
	p := newPlane(t, dataplane.Config{LocalTarget: func(string, netip.AddrPort, string) error {
		if allow {
			return nil
		}
		return denied
	}}, s)
	n := newClient(t, 2, g)
	refused := func(what, addr string) {
		t.Helper()
		refusedAtOnce(t, n, what, addr)
	}
	servePortal(t, p)
	get(t, httpClient(n), "http://10.77.0.1/") // WireGuard's handshake is done
	refused("before the code", "10.77.128.1:5432")
	update(t, p, dataplane.Change{PutSessions: []dataplane.Session{signIn(alice, 1, time.Hour)}})
	reads := func(addr, want string) {
		t.Helper()
		b, err := io.ReadAll(mustDial(t, n, "tcp", addr))
		if err != nil || !strings.HasPrefix(string(b), want) {
			t.Errorf("%s says %q, %v; want %q", addr, b, err, want)
		}
	}
	reads("10.77.128.1:5432", "hello 198.51.100.1:")
	reads("[fd77::8000:0:0:1]:5432", "hello 198.51.100.1:") // a client of IPv6, a target of IPv4
	reads("10.77.128.4:5433", "hello [2001:db8:51::1]:")    // and the other way round
	reads("10.77.128.2:80", "hello 127.77.0.2:")
	reads("[fd77::8000:0:0:2]:80", "hello 127.77.0.2:")
	reads("10.77.128.5:90", "10.77.0.2:")
	if got, err := exchange(mustDial(t, n, "udp", "10.77.128.3:53"), "query", 5*time.Second); got != "query" {
		t.Errorf("by UDP comes %q, %v", got, err)
	}
	// The grant is of the resource, not of its target; and of its ports.
	refused("the target as such", "198.51.100.2:5432")
	refused("another port", "10.77.128.1:22")
	refused("an address that nobody has", "10.77.128.9:5432")
	refused("nobody listens", "10.77.128.3:99")
	allow = false
	refused("not among the local targets", "10.77.128.2:80")
	allow = true

	// "off" needs no code, and the other device none of this.
	m := newClient(t, 3, g)
	if got, err := exchange(mustDial(t, m, "udp", "10.77.128.3:53"), "query", 5*time.Second); got != "query" {
		t.Errorf("without a code, by UDP comes %q, %v", got, err)
	}
}

// An open flow stays when the target moves, and both ends are told when it is cut.
func TestServiceMovesAndIsCut(t *testing.T) {
	needResource(t)
	ended := make(chan error, 1)
	listenTCP(t, "res", "198.51.100.2:5432", func(c net.Conn) {
		io.WriteString(c, "here")
		_, err := c.Read(make([]byte, 1))
		ended <- err
	})
	alice := testDevice(2, "alice/laptop")
	g := testGateway(t)
	s := dataplane.State{Gateway: g, Devices: []dataplane.Device{alice}, Rules: compile(t, servicePolicy, alice), Sessions: []dataplane.Session{signIn(alice, 1, time.Hour)}}
	s.Services = servicesOf(t, s)
	p := newPlane(t, dataplane.Config{}, s)
	n := newClient(t, 2, g)
	c := mustDial(t, n, "tcp", "10.77.128.1:5432")
	b := make([]byte, 4)
	if _, err := io.ReadFull(c, b); err != nil {
		t.Fatal(err)
	}
	moved := servicesOf(t, s)
	moved[0].Hosts = nil // nobody knows where it is now
	update(t, p, dataplane.Change{Services: moved})
	if _, err := dial(t, n, "tcp", "10.77.128.1:5432"); err == nil {
		t.Error("a new flow leads to where the target was")
	}
	select {
	case err := <-ended:
		t.Errorf("the flow that was open has ended: %v", err)
	case <-time.After(300 * time.Millisecond):
	}
	// The resource is taken out of the policy.
	update(t, p, dataplane.Change{Rules: compile(t, `{}`, alice), Services: []dataplane.Service{}})
	c.SetReadDeadline(time.Now().Add(5 * time.Second))
	if _, err := c.Read(b); err == nil || strings.Contains(err.Error(), "timeout") {
		t.Errorf("the client is not told: %v", err)
	}
	select {
	case err := <-ended:
		if err == nil || errors.Is(err, io.EOF) {
			t.Errorf("the server is told %v, want a reset", err)
		}
	case <-time.After(5 * time.Second):
		t.Error("the server is not told")
	}
}
