package netstack

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"
	"time"

	proxyproto "github.com/pires/go-proxyproto"

	"vpnd/internal/dataplane"
)

// Where nothing leads is refused at once, and named once in the log.
func TestServiceLeadsNowhere(t *testing.T) {
	var log lockedBuffer
	w := publish(t, dataplane.Config{Log: slog.New(slog.NewTextHandler(&log, nil))}, `{"resources": {
		"dark":  {"to": "nas.lan:445"},
		"here":  {"to": "localhost:3000"},
		"names": {"to": "nas.lan", "ports": ["udp:53"]},
		"own":   {"to": "192.0.2.9:5000"},
	}, "grants": [{"src": ["alice"], "dst": ["dark", "here", "names", "own"]}]}`, func(s map[string]*dataplane.Service) {
		s["own"].Hosts = []netip.Addr{netip.MustParseAddr("10.77.0.9"), netip.MustParseAddr("169.254.1.1"), netip.MustParseAddr("::1")}
	})
	onHost(t, "tcp", "127.0.0.1:3000", greet)
	refusedAtOnce(t, w.client, "no session", "10.77.128.1:445")
	w.signIn(t)
	for range 2 {
		refusedAtOnce(t, w.client, "no target is known", "10.77.128.1:445")
		refusedAtOnce(t, w.client, "nothing of this host is permitted", "10.77.128.2:3000")
		refusedAtOnce(t, w.client, "addresses that are never dialled", "10.77.128.4:5000")
	}
	refusedAtOnce(t, w.client, "another port", "[fd77::8000:0:0:1]:446")
	refusedAtOnce(t, w.client, "nobody's service address", "10.77.128.200:445")
	u := mustDial(t, w.client, "udp", "10.77.128.3:53")
	exchange(u, "query", 100*time.Millisecond) // the client's stack wakes no reader for ICMP, but tells the next
	if got, err := exchange(u, "query", time.Second); err == nil || !strings.Contains(err.Error(), "refused") {
		t.Errorf("by UDP, no target is known: %q, %v; want ICMP", got, err)
	}
	for _, name := range []string{"dark", "here", "own"} {
		if n := strings.Count(log.String(), "what="+name); n != 1 {
			t.Errorf("%s is named %d times in the log:\n%s", name, n, log.String())
		}
	}
	// Once more when it has led somewhere in between.
	listenTCP(t, "res", "198.51.100.2:445", greet)
	found := servicesOf(t, w.state)
	named(found)["dark"].Hosts = []netip.Addr{res4}
	update(t, w.Plane, dataplane.Change{Services: found})
	if got := says(t, w.client, "10.77.128.1:445"); !strings.HasPrefix(got, "hello ") {
		t.Errorf("found, it says %q", got)
	}
	update(t, w.Plane, dataplane.Change{Services: w.state.Services})
	refusedAtOnce(t, w.client, "lost again", "10.77.128.1:445")
	if n := strings.Count(log.String(), "what=dark"); n != 2 {
		t.Errorf("lost again, it is named %d times in the log", n)
	}
}

// Port 80 leads to the sign-in page without a session, but where no code is asked for.
func TestServiceCaptive(t *testing.T) {
	w := publish(t, dataplane.Config{LocalTarget: allowAll}, `{"resources": {
		"open": {"to": "http://localhost:3000"},
		"wiki": {"to": "http://localhost:3000"},
	}, "grants": [{"src": ["alice"], "dst": ["wiki"]}, {"src": ["alice"], "dst": ["open"], "mfa": "off"}]}`, nil)
	onHost(t, "tcp", "127.0.0.1:3000", func(c net.Conn) {
		c.Read(make([]byte, 4096))
		io.WriteString(c, "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nthe wiki")
		c.Close()
	})
	c := httpClient(w.client)
	ask := func(url, want string) {
		t.Helper()
		if got := get(t, c, url); got != want {
			t.Errorf("GET %s = %q, want %q", url, got, want)
		}
	}
	ask("http://10.77.128.1/", "the wiki")
	ask("http://10.77.128.2/", "10.77.0.2 asked 10.77.128.2:80")
	ask("http://[fd77::8000:0:0:2]/", "fd77::2 asked [fd77::8000:0:0:2]:80")
	ask("http://10.77.128.200/", "10.77.0.2 asked 10.77.128.200:80")
	w.signIn(t)
	ask("http://10.77.128.2/", "the wiki")
	ask("http://[fd77::8000:0:0:2]/", "the wiki")
	refusedAtOnce(t, w.client, "nobody's service address", "10.77.128.200:80")
}

// Who a service on this host sees.
func TestServiceCallers(t *testing.T) {
	w := publish(t, dataplane.Config{LocalTarget: allowAll}, `{"resources": {
		"device":  {"to": "localhost:3000"},
		"gateway": {"to": "localhost:3000", "from": "gateway"},
		"mine":    {"to": "198.51.100.1:3001"},
		"mine6":   {"to": "[2001:db8:51::1]:3001"},
		"proxy":   {"to": "localhost:3002", "proxy": "v2"},
	}, "grants": [{"src": ["alice"], "dst": ["device", "gateway", "mine", "mine6", "proxy"]}]}`, func(s map[string]*dataplane.Service) {
		s["gateway"].FromGateway = true
	})
	onHost(t, "tcp", "127.0.0.1:3000", greet)
	onHost(t, "tcp", ":3001", greet)
	onHost(t, "tcp", "127.0.0.1:3002", func(c net.Conn) {
		defer c.Close()
		p := proxyproto.NewConn(c)
		b := make([]byte, 5)
		if _, err := io.ReadFull(p, b); err != nil {
			return
		}
		tlvs, _ := p.ProxyHeader().TLVs()
		fmt.Fprintf(c, "%s %v to %v, %s on %s", b, p.RemoteAddr().(*net.TCPAddr).IP, p.LocalAddr(), tlvs[0].Value, tlvs[1].Value)
	})
	w.signIn(t)
	for addr, want := range map[string]string{
		"10.77.128.1:3000":        "hello 127.77.0.2:",
		"[fd77::8000:0:0:1]:3000": "hello 127.77.0.2:",
		"10.77.128.2:3000":        "hello " + hostAddr(gateway4).String() + ":", // whichever the host has
		"10.77.128.3:3001":        "hello 127.77.0.2:",
		"[fd77::8000:0:0:3]:3001": "hello 127.77.0.2:",
	} {
		if got := says(t, w.client, addr); !strings.HasPrefix(got, want) {
			t.Errorf("%s says %q, want %q", addr, got, want)
		}
	}
	refusedAtOnce(t, w.client, "an IPv6 address of this host, where nothing stands for a device", "10.77.128.4:3001")
	for addr, want := range map[string]string{
		"10.77.128.5:3002":        "first 10.77.0.2 to 10.77.128.5:3002, alice on laptop",
		"[fd77::8000:0:0:5]:3002": "first fd77::2 to [fd77::8000:0:0:5]:3002, alice on laptop",
	} {
		c := mustDial(t, w.client, "tcp", addr)
		io.WriteString(c, "first")
		c.SetReadDeadline(time.Now().Add(5 * time.Second))
		if b, err := io.ReadAll(c); string(b) != want {
			t.Errorf("%s says %q, %v; want %q", addr, b, err, want)
		}
	}
}

// Each direction of a connection ends by itself, whatever carries it.
func TestServiceHalfCloses(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.sock")
	w := publish(t, dataplane.Config{LocalTarget: allowAll}, `{"resources": {
		"far":   {"to": "198.51.100.2:5400"},
		"local": {"to": "localhost:5400"},
		"sock":  {"to": "unix:/run/x.sock", "port": 5400},
	}, "grants": [{"src": ["alice"], "dst": ["far", "local", "sock"]}]}`, func(s map[string]*dataplane.Service) { s["sock"].Path = path })
	count := func(c net.Conn) {
		n, err := io.Copy(io.Discard, c) // until the client has ended its own
		fmt.Fprintf(c, "%d bytes, %v", n, err)
		c.Close()
	}
	listenTCP(t, "res", "198.51.100.2:5400", count)
	onHost(t, "tcp", "127.0.0.1:5400", count)
	onHost(t, "unix", path, count)
	w.signIn(t)
	for i := range 3 {
		c := mustDial(t, w.client, "tcp", fmt.Sprintf("10.77.128.%d:5400", i+1))
		if _, err := c.Write(make([]byte, 1<<20)); err != nil {
			t.Fatal(err)
		}
		c.(interface{ CloseWrite() error }).CloseWrite()
		c.SetReadDeadline(time.Now().Add(10 * time.Second))
		if b, err := io.ReadAll(c); string(b) != "1048576 bytes, <nil>" {
			t.Errorf("service %d says %q, %v", i+1, b, err)
		}
	}
}

// The end of a session tells both ends of every flow to a service within a second.
func TestServiceSessionEnds(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.sock")
	w := publish(t, dataplane.Config{LocalTarget: allowAll}, `{"resources": {
		"far":   {"to": "198.51.100.2:5500"},
		"local": {"to": "localhost:5500"},
		"names": {"to": "localhost", "ports": ["udp:5500"]},
		"sock":  {"to": "unix:/run/x.sock", "port": 5500},
	}, "grants": [{"src": ["alice"], "dst": ["*"], "ip": ["*"]}]}`, func(s map[string]*dataplane.Service) { s["sock"].Path = path })
	type end struct {
		who string
		err error
	}
	ends := make(chan end, 8)
	wait := func(who string) func(net.Conn) {
		return func(c net.Conn) {
			io.WriteString(c, "here")
			_, err := c.Read(make([]byte, 1))
			ends <- end{who, err}
			c.Close()
		}
	}
	listenTCP(t, "res", "198.51.100.2:5500", wait("the far server"))
	onHost(t, "tcp", "127.0.0.1:5500", wait("the local server"))
	onHost(t, "unix", path, wait("the server at the socket"))
	u, err := net.ListenPacket("udp", "127.0.0.1:5500")
	if err != nil {
		t.Fatal(err)
	}
	defer u.Close()
	go echoUDP(u.(*net.UDPConn))
	w.signIn(t)
	for _, i := range []int{1, 2, 4} {
		c := mustDial(t, w.client, "tcp", fmt.Sprintf("10.77.128.%d:5500", i))
		if _, err := io.ReadFull(c, make([]byte, 4)); err != nil {
			t.Fatal(err)
		}
		go func() {
			_, err := c.Read(make([]byte, 1))
			ends <- end{fmt.Sprintf("the client of %d", i), err}
		}()
	}
	c := mustDial(t, w.client, "udp", "10.77.128.3:5500")
	if got, err := exchange(c, "query", 5*time.Second); got != "query" {
		t.Fatalf("by UDP comes %q, %v", got, err)
	}
	update(t, w.Plane, dataplane.Change{EndSessions: []dataplane.Session{signIn(w.alice, 1, time.Hour)}})
	told := map[string]error{}
	for limit := time.After(time.Second); len(told) < 6; {
		select {
		case e := <-ends:
			told[e.who] = e.err
			if e.err == nil || errors.Is(e.err, io.EOF) && e.who != "the server at the socket" {
				t.Errorf("%s is told %v, want a reset", e.who, e.err)
			}
		case <-limit:
			t.Fatalf("told within a second are only %v", told)
		}
	}
	for _, c := range []net.Conn{c, mustDial(t, w.client, "udp", "10.77.128.3:5500")} {
		if got, err := exchange(c, "query", 300*time.Millisecond); got != "" {
			t.Errorf("after the end comes %q, %v by UDP", got, err)
		}
	}
}
