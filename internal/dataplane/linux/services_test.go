package linux

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"vpnd/acl/language"
	"vpnd/acl/rules"
	"vpnd/internal/dataplane"
)

const servicePolicy = `{
	"resources": {
		"a-local":  {"to": "http://localhost:3000"},
		"b-own":    {"to": "192.0.2.1:3001", "from": "gateway"},
		"c-socket": {"to": "unix:/run/test.sock", "port": 81},
		"d-routed": {"to": "192.0.2.2:3000"},
		"e-udp":    {"to": "localhost", "ports": ["udp:3003"]},
		"f-proxy":  {"to": "192.0.2.2:3004", "proxy": "v2"},
		"g-moves":  {"to": "192.0.2.77:3005"},
		"h-back":   {"to": "localhost:3006", "from": "gateway"},
		"i-udp":    {"to": "localhost", "ports": ["udp:3007"]},
	},
	"grants": [{"src": ["alice"], "dst": ["a-local", "b-own", "c-socket", "d-routed", "e-udp", "f-proxy", "g-moves", "h-back", "i-udp"]}],
}`

// servicesOf are the resources of a policy at their provisional addresses, in the order of
// their names.
func servicesOf(t *testing.T, text string, dev dataplane.Device) (*rules.Ruleset, map[string]*dataplane.Service, func() []dataplane.Service) {
	t.Helper()
	p, err := language.Parse([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	r, err := rules.Compile(p, rules.Options{Network: network, Gateway: gwAddrs, Session: time.Hour},
		[]rules.Subject{{Device: dev.Name, User: strings.Split(dev.Name, "/")[0], Addrs: dev.Addrs}})
	if err != nil {
		t.Fatal(err)
	}
	byName := map[string]*dataplane.Service{}
	for i, name := range p.Resources() {
		res := p.Resource(name)
		s := &dataplane.Service{Name: name, Ports: res.Ports, ToPort: res.ToPort, Path: res.To.Path, ProxyV2: res.ProxyV2, FromGateway: res.FromGateway,
			Addrs: []netip.Addr{netip.AddrFrom4([4]byte{10, 77, 128, byte(i + 1)}), netip.AddrFrom16([16]byte{0: 0xfd, 1: 0x77, 8: 0x80, 15: byte(i + 1)})}}
		switch {
		case res.To.Loopback():
			s.Hosts = []netip.Addr{netip.MustParseAddr("127.0.0.1")}
		case res.To.Addr.IsValid():
			s.Hosts = []netip.Addr{res.To.Addr}
		}
		byName[name] = s
	}
	return r, byName, func() (out []dataplane.Service) {
		for _, name := range p.Resources() {
			out = append(out, *byName[name])
		}
		return out
	}
}

// greeter tells each caller its name and its address, and echoes what follows.
func greeter(t *testing.T, ns, network, at string) <-chan net.Conn {
	t.Helper()
	var l net.Listener
	var err error
	if listen := func() { l, err = net.Listen(network, at) }; ns == "" {
		listen()
	} else {
		within(t, ns, listen)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	conns := make(chan net.Conn, 64)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			conns <- c
			go func() {
				fmt.Fprintf(c, "%s|%s\n", at, c.RemoteAddr())
				io.Copy(c, c)
			}()
		}
	}()
	return conns
}

// call connects from the client's namespace and returns the greeting.
func (b *bed) call(a netip.Addr, port uint16) (net.Conn, string, error) {
	var c net.Conn
	var err error
	within(b.t, b.client, func() { c, err = net.DialTimeout("tcp", netip.AddrPortFrom(a, port).String(), time.Second) })
	if err != nil {
		return nil, "", err
	}
	b.t.Cleanup(func() { c.Close() })
	c.SetReadDeadline(time.Now().Add(time.Second))
	var line []byte
	for one := make([]byte, 1); !bytes.HasSuffix(line, []byte("\n")); line = append(line, one...) {
		if _, err := c.Read(one); err != nil {
			return c, string(line), err
		}
	}
	c.SetReadDeadline(time.Time{})
	return c, strings.TrimSpace(string(line)), nil
}

// TestServices: resources on the gateway's own host and behind it, by both families, through
// WireGuard: who calls is seen, nothing is open before the code, and both ends know at once
// when it is over.
func TestServices(t *testing.T) {
	b := newBed(t)
	key := newKey(t)
	dev, private := testDevice(t, 2)
	dev.Name = "alice/laptop"
	gw := gateway(key)
	gw.Masquerade, gw.Routes = true, nil
	ruleset, services, all := servicesOf(t, servicePolicy, dev)

	local := greeter(t, "", "tcp", "127.0.0.1:3000")
	greeter(t, "", "tcp", "192.0.2.1:3001")
	greeter(t, "", "tcp", "127.0.0.1:3006")
	sock := "/run/test.sock"
	greeter(t, "", "unix", sock)
	routed := greeter(t, b.resource, "tcp", "192.0.2.2:3000")
	greeter(t, b.resource, "tcp", "0.0.0.0:3005")
	greeter(t, "", "tcp", "0.0.0.0:22") // as sshd
	denied := errors.New("not listed")
	var listed atomic.Bool
	listed.Store(true)
	c := b.config()
	c.LocalTarget = func(network string, to netip.AddrPort, path string) error {
		if !listed.Load() {
			return denied
		}
		return nil
	}
	p, err := Options{}.New(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error("Close:", err)
		}
		if t.Failed() {
			t.Logf("drift: %v\nlog: %s", b.drift, strings.Join(b.logs, "\n"))
		}
	})
	if err := p.Set(t.Context(), dataplane.State{Gateway: gw, Devices: []dataplane.Device{dev}, Rules: ruleset, Services: all()}); err != nil {
		t.Fatal(err)
	}
	b.connect(dev, private, key)
	eventually(t, "the handshake", func() bool {
		b.pings("10.77.0.1")
		return !strings.HasSuffix(run(t, "ip netns exec client wg show wgc0 latest-handshakes"), "\t0")
	})

	update := func(c dataplane.Change) {
		t.Helper()
		if err := p.Update(t.Context(), c); err != nil {
			t.Fatal(err)
		}
	}
	at := func(name string, v int) (netip.Addr, uint16) {
		return services[name].Addrs[v], services[name].Ports[0].First
	}
	want := func(name string, v int, server, client string) net.Conn {
		t.Helper()
		a, port := at(name, v)
		c, got, err := b.call(a, port)
		wantServer, _, _ := strings.Cut(got, "|")
		if err != nil || wantServer != server || !strings.Contains(got, "|"+client) {
			t.Errorf("%s at %s: %q, %v; want %s called from %s", name, a, got, err, server, client)
		}
		return c
	}
	refused := func(name string, v int, when string) {
		t.Helper()
		begin := time.Now()
		a, port := at(name, v)
		if _, got, err := b.call(a, port); err == nil {
			t.Errorf("%s: %s at %s answers %q", when, name, a, got)
		} else if d := time.Since(begin); d > 500*time.Millisecond*slow() {
			t.Errorf("%s: %s at %s is refused after %v", when, name, a, d)
		}
	}
	for _, name := range []string{"b-own", "c-socket", "d-routed", "f-proxy", "h-back"} {
		refused(name, 0, "before the code")
		refused(name, 1, "before the code")
	}
	now := time.Now()
	in := dataplane.Session{Device: dev.ID, Addrs: dev.Addrs, Until: now.Add(time.Hour), Codes: []dataplane.Code{{Serial: 1, At: now}}}
	update(dataplane.Change{PutSessions: []dataplane.Session{in}})
	var open []net.Conn
	for v := range 2 {
		open = append(open,
			want("a-local", v, "127.0.0.1:3000", "127.77.0.2:"),
			want("b-own", v, "192.0.2.1:3001", "10.77.0.1:"),
			want("h-back", v, "127.0.0.1:3006", "10.77.0.1:"),
			want("c-socket", v, sock, ""),
			want("d-routed", v, "192.0.2.2:3000", "192.0.2.1:"),
		)
	}
	for _, name := range []string{"a-local", "d-routed"} { // sshd on 0.0.0.0:22
		for v := range 2 {
			a, _ := at(name, v)
			if _, got, err := b.call(a, 22); err == nil {
				t.Errorf("port 22 of %s answers %q", a, got)
			}
		}
	}
	// A server of the same port on every address is no clash, before or after.
	if l, err := net.Listen("tcp", "0.0.0.0:81"); err != nil {
		t.Error(err)
	} else {
		l.Close()
		want("c-socket", 0, sock, "")
	}

	// What the host itself sends to a service address reaches nothing.
	if c, err := net.DialTimeout("tcp", "10.77.128.1:80", 300*time.Millisecond); err == nil {
		c.Close()
		t.Error("the host itself reaches a service address")
	}
	// Neither does whoever asks for the relay's port.
	if _, got, err := b.call(gwAddrs[0], p.relayed.tcp.port); err == nil {
		t.Errorf("the relay's own port answers %q", got)
	}

	// An address that comes to this host is called from the device's address of 127/8 from
	// then on, and as a host behind when it goes.
	run(t, "ip -n resource addr add 192.0.2.77/24 dev eth0")
	want("g-moves", 0, "0.0.0.0:3005", "192.0.2.1:")
	run(t, "ip -n resource addr del 192.0.2.77/24 dev eth0; ip addr add 192.0.2.77/32 dev r0")
	greeter(t, "", "tcp", "192.0.2.77:3005")
	eventually(t, "the address that came", func() bool {
		a, port := at("g-moves", 0)
		_, got, err := b.call(a, port)
		return err == nil && strings.Contains(got, "|127.77.0.2:")
	})
	run(t, "ip addr del 192.0.2.77/32 dev r0")

	// It is asked whether this host's may be called, before each call.
	listed.Store(false)
	refused("a-local", 0, "not listed")
	refused("c-socket", 1, "not listed")
	want("d-routed", 0, "192.0.2.2:3000", "192.0.2.1:")
	b.mu.Lock()
	if n := strings.Count(strings.Join(b.logs, ""), "not listed"); n != 2 {
		t.Errorf("%d lines in the log for two services: %s", n, b.logs)
	}
	b.mu.Unlock()
	listed.Store(true)
	want("a-local", 0, "127.0.0.1:3000", "127.77.0.2:")

	for len(local) > 1 {
		<-local
	}
	for len(routed) > 1 {
		<-routed
	}
	ends := append(open, <-local, <-routed)
	update(dataplane.Change{EndSessions: []dataplane.Session{in}})
	for i, c := range ends {
		c.SetReadDeadline(time.Now().Add(time.Second * slow()))
		if _, err := io.Copy(io.Discard, c); err == nil && i < len(open) || os.IsTimeout(err) {
			t.Errorf("end %d (%s to %s) is not told: %v", i, c.LocalAddr(), c.RemoteAddr(), err)
		}
	}
	refused("c-socket", 0, "after the code")
}

// TestServicesUDP: datagrams to this host, by both families, find their way and their end.
func TestServicesUDP(t *testing.T) {
	b := newBed(t)
	key := newKey(t)
	dev, private := testDevice(t, 2)
	dev.Name = "alice/laptop"
	ruleset, services, all := servicesOf(t, servicePolicy, dev)
	for _, at := range []string{"127.0.0.1:3003", "127.0.0.1:3007"} {
		u, err := net.ListenPacket("udp", at)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { u.Close() })
		go func() {
			m := make([]byte, 64<<10)
			for {
				_, from, err := u.ReadFrom(m)
				if err != nil {
					return
				}
				u.WriteTo([]byte(from.String()+" to "+at), from)
			}
		}()
	}
	c := b.config()
	c.LocalTarget = func(string, netip.AddrPort, string) error { return nil }
	p, err := Options{}.New(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error("Close:", err)
		}
		if t.Failed() {
			t.Logf("drift: %v\nlog: %s", b.drift, strings.Join(b.logs, "\n"))
		}
	})
	now := time.Now()
	in := dataplane.Session{Device: dev.ID, Addrs: dev.Addrs, Until: now.Add(time.Hour), Codes: []dataplane.Code{{Serial: 1, At: now}}}
	s := dataplane.State{Gateway: gateway(key), Devices: []dataplane.Device{dev}, Rules: ruleset, Sessions: []dataplane.Session{in}}
	if err := p.Set(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	if err := p.Update(t.Context(), dataplane.Change{Services: all()}); err != nil {
		t.Fatal(err)
	}
	b.connect(dev, private, key)
	for v := range 2 {
		var c net.Conn
		within(t, b.client, func() {
			c, err = net.Dial("udp", netip.AddrPortFrom(services["e-udp"].Addrs[v], 3003).String())
		})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		got := make([]byte, 100)
		eventually(t, "an answer", func() bool {
			io.WriteString(c, "x")
			c.SetReadDeadline(time.Now().Add(200 * time.Millisecond))
			n, err := c.Read(got)
			return err == nil && strings.HasPrefix(string(got[:n]), "127.77.0.2:")
		})
	}
	// One socket calls two resources: to the relay both come from the same address and port.
	for v := range 2 {
		var pc net.PacketConn
		within(t, b.client, func() { pc, err = net.ListenPacket("udp", netip.AddrPortFrom(dev.Addrs[v], 0).String()) })
		if err != nil {
			t.Fatal(err)
		}
		defer pc.Close()
		for range 5 {
			for name, port := range map[string]uint16{"e-udp": 3003, "i-udp": 3007} {
				to := netip.AddrPortFrom(services[name].Addrs[v], port)
				got := make([]byte, 100)
				pc.SetDeadline(time.Now().Add(time.Second * slow()))
				if _, err := pc.WriteTo([]byte("x"), net.UDPAddrFromAddrPort(to)); err != nil {
					t.Error(err)
				}
				n, from, err := pc.ReadFrom(got)
				if err != nil || from.String() != to.String() || !strings.HasSuffix(string(got[:n]), fmt.Sprintf(" to 127.0.0.1:%d", port)) {
					t.Errorf("%s: %q from %v, %v", to, got[:n], from, err)
				}
			}
		}
	}
	// The tunnel's interface comes back, and the sockets with it.
	run(t, "ip link del vpn0")
	b.drifted("interface vpn0", "removed")
	var again net.Conn
	within(t, b.client, func() { again, err = net.Dial("udp", netip.AddrPortFrom(services["e-udp"].Addrs[0], 3003).String()) })
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	answered := func() bool {
		if _, err := io.WriteString(again, "x"); err != nil && !errors.Is(err, unix.EHOSTUNREACH) && !errors.Is(err, unix.EACCES) {
			t.Error(err)
		}
		again.SetReadDeadline(time.Now().Add(200 * time.Millisecond))
		_, err := again.Read(make([]byte, 100))
		return err == nil
	}
	eventually(t, "an answer by the new interface", answered)
	if out := run(t, "ss -Hun dst 127.0.0.1:3003"); out == "" {
		t.Error("ss does not see the flow to the target")
	}
	if err := p.Update(t.Context(), dataplane.Change{EndSessions: []dataplane.Session{in}}); err != nil {
		t.Fatal(err)
	}
	if out := run(t, "ss -Hun dst 127.0.0.1:3003"); out != "" {
		t.Errorf("flows to the target after the end: %s", out)
	}
	for answered() { // what was under way
	}
	for range 3 {
		if answered() {
			t.Error("an answer after the end")
		}
	}
}

// TestRelayAwaitsTheFilter: what comes to the relay while the packet filter is being changed
// was permitted by the former rules. It leads to what they meant, or nowhere.
func TestRelayAwaitsTheFilter(t *testing.T) {
	ports := []language.Span{{Proto: 6, First: 80, Last: 80}}
	at := func(n byte) netip.Addr { return netip.AddrFrom4([4]byte{10, 77, 128, n}) }
	service := func(name, path string, n byte) dataplane.Service {
		return dataplane.Service{Name: name, Path: path, Addrs: []netip.Addr{at(n)}, Ports: ports}
	}
	dev := func(name string) dataplane.Device {
		return dataplane.Device{Name: name, Addrs: []netip.Addr{netip.MustParseAddr("10.77.0.2")}}
	}
	p := newPublished()
	client := netip.MustParseAddrPort("10.77.0.2:4000")
	want := func(when string, n byte, path, user string) {
		t.Helper()
		s, c, err := p.called(6, client, netip.AddrPortFrom(at(n), 80))
		if path == "" && err == nil || path != "" && (err != nil || s.Path != path || c.User != user) {
			t.Errorf("%s: %s leads to %+v for %q, %v; want %q for %q", when, at(n), s, c.User, err, path, user)
		}
	}
	first := dataplane.State{Devices: []dataplane.Device{dev("alice/a")}, Services: []dataplane.Service{service("a", "/a", 1), service("b", "/b", 2)}}
	p.await(first)
	want("at first, before the filter", 1, "", "")
	p.set(first)
	want("at first", 1, "/a", "alice")

	swapped := dataplane.Change{Services: []dataplane.Service{service("a", "/new", 1), service("c", "/c", 2)}}
	p.awaitChange(swapped)
	p.awaitChange(swapped) // the filter has failed, and it is tried again
	want("before the filter", 1, "/new", "alice")
	want("before the filter", 2, "", "")
	p.change(swapped)
	want("behind it", 2, "/c", "alice")
	if _, _, err := p.called(17, client, netip.AddrPortFrom(at(2), 80)); err == nil {
		t.Error("UDP leads to what has no UDP")
	}

	heir := dataplane.State{Devices: []dataplane.Device{dev("bob/b")}, Services: swapped.Services}
	p.await(heir)
	want("the device's heir, before the filter", 1, "", "")
	p.set(heir)
	want("the device's heir", 1, "/new", "bob")
}
