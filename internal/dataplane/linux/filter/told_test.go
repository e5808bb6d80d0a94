package filter

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/ti-mo/conntrack"
	"golang.org/x/sys/unix"

	"vpnd/internal/dataplane"
)

const toldPolicy = `{
	"resources": {"a": {"to": "192.168.50.2:700", "port": 7000}},
	"hosts": {"wiki": "192.168.50.2", "wiki6": "fd50::2"},
	"grants": [
		{"src": ["alice"], "dst": ["wiki", "wiki6"], "ip": ["tcp:700"]},
		{"src": ["wiki", "wiki6"], "dst": ["alice"], "ip": ["tcp:700"]},
		{"src": ["alice"], "dst": ["bob"], "ip": ["tcp:700"]},
		{"src": ["alice"], "dst": ["a"], "ip": ["tcp:7000"]},
	],
}`

// waiting is a connection both of whose ends only read.
type waiting struct {
	what string
	ends [2]net.Conn
}

func (b *bed) wait(what, from, to string, at netip.Addr, port uint16) waiting {
	b.t.Helper()
	return b.waitBy(what, from, to, at, port, netip.AddrPortFrom(at, port))
}

// waitBy asks for another address than that of the server.
func (b *bed) waitBy(what, from, to string, at netip.Addr, port uint16, asked netip.AddrPort) waiting {
	b.t.Helper()
	l, err := in(b, to, func() (net.Listener, error) { return net.Listen("tcp", netip.AddrPortFrom(at, port).String()) })
	if err != nil {
		b.t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	if to == "" { // as the portal does
		raw, err := l.(*net.TCPListener).SyscallConn()
		if err == nil {
			_ = raw.Control(func(fd uintptr) { err = unix.SetsockoptString(int(fd), unix.SOL_SOCKET, unix.SO_BINDTODEVICE, "vt") })
		}
		if err != nil {
			b.t.Fatal(err)
		}
		asked = netip.AddrPortFrom(at, 80)
	}
	c, err := b.dial(from, asked.Addr(), asked.Port())
	if err != nil {
		b.t.Fatalf("%s: %v", what, err)
	}
	s, err := l.Accept()
	if err != nil {
		b.t.Fatal(err)
	}
	b.closers = append(b.closers, c, s)
	return waiting{what, [2]net.Conn{c, s}}
}

// told fails if an end of a connection is not reset by now, or nearly.
func (b *bed) told(list []waiting) {
	b.t.Helper()
	for _, w := range list {
		for i, c := range w.ends {
			_ = c.SetReadDeadline(time.Now().Add(3 * time.Second))
			n, err := c.Read(make([]byte, 1))
			if err == nil || os.IsTimeout(err) || strings.Contains(err.Error(), "EOF") {
				b.t.Errorf("%s: the end that %s it: read %d bytes, %v; want it reset", w.what, []string{"began", "accepted"}[i], n, err)
			}
		}
	}
}

func (b *bed) notTold(w waiting) {
	b.t.Helper()
	for _, c := range w.ends {
		_ = c.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
		if _, err := c.Read(make([]byte, 1)); !os.IsTimeout(err) {
			b.t.Errorf("%s: %v; want it to go on", w.what, err)
		}
	}
}

// TestTold: whatever ends a connection, both ends know, also if they only wait, and nothing
// is tracked afterwards.
func TestTold(t *testing.T) {
	without := strings.Replace(strings.Replace(toldPolicy, `"tcp:700"`, `"tcp:701"`, -1), `["alice"], "dst": ["a"]`, `["bob"], "dst": ["a"]`, 1)
	for _, x := range []struct {
		name string
		do   func(b *bed, alice, bob dataplane.Session)
		all  bool // the portal's connection ends as well
	}{
		{"session ended", func(b *bed, alice, bob dataplane.Session) { b.signOut(alice) }, false},
		{"session ended by the kernel", func(b *bed, alice, bob dataplane.Session) {
			time.Sleep(time.Until(alice.Until) + 50*time.Millisecond)
		}, false},
		{"policy changed", func(b *bed, alice, bob dataplane.Session) {
			b.state.Rules = b.compile(without)
			b.update(dataplane.Change{Rules: b.state.Rules})
		}, false},
		{"everything set anew", func(b *bed, alice, bob dataplane.Session) {
			b.state.Sessions = []dataplane.Session{bob}
			b.set()
		}, false},
		{"device removed", func(b *bed, alice, bob dataplane.Session) {
			b.update(dataplane.Change{RemoveDevices: []dataplane.Device{b.device("alice")}, EndSessions: []dataplane.Session{alice}})
		}, true},
	} {
		for _, masquerade := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/masquerade=%v", x.name, masquerade), func(t *testing.T) {
				b := newBed(t, toldPolicy, func(_ *Config, s *dataplane.State) {
					s.Gateway.Masquerade = masquerade
					a := service("a", 1, tcpPort(7000), wiki4)
					a6 := a
					a.Addrs, a6.Addrs, a6.Hosts = a.Addrs[:1], a.Addrs[1:], []netip.Addr{wiki6}
					a.ToPort, a6.ToPort = 700, 700
					s.Services = []dataplane.Service{a, a6}
				})
				alice, bob := b.signIn("alice", 3*time.Second), b.signIn("bob", time.Hour)
				list := []waiting{
					b.wait("to a resource", "alice", "wiki", wiki4, 700),
					b.wait("to a resource, IPv6", "alice", "wiki", wiki6, 700),
					b.waitBy("to a service address", "alice", "wiki", wiki4, 700, netip.AddrPortFrom(serviceAddr(1, false), 7000)),
					b.waitBy("to a service address, IPv6", "alice", "wiki", wiki6, 700, netip.AddrPortFrom(serviceAddr(1, true), 7000)),
					b.wait("from a resource", "wiki", "alice", alice4, 700),
					b.wait("from a resource, IPv6", "wiki", "alice", alice6, 700),
					b.wait("to a device", "alice", "bob", bob4, 700),
					b.wait("to a device, IPv6", "alice", "bob", bob6, 700),
				}
				portal := b.wait("to the portal", "alice", "", gw4, portalPort)
				others := b.wait("another's to the portal", "bob", "", gw6, portalPort)
				x.do(b, alice, bob)
				if x.all {
					list = append(list, portal)
				} else {
					b.notTold(portal)
				}
				b.told(list)
				b.notTold(others)
				select {
				case <-b.f.Told():
				case <-time.After(10 * time.Second):
					t.Fatal("the filter does not get done with telling")
				}
				b.untracked(700)
			})
		}
	}
}

// untracked fails when there are flows of a port.
func (b *bed) untracked(port uint16) {
	b.t.Helper()
	conn, err := dialConntrack()
	if err != nil {
		b.t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	all, err := conn.Dump(nil)
	if err != nil {
		b.t.Fatal(err)
	}
	for _, f := range all {
		for _, t := range []conntrack.Tuple{f.TupleOrig, f.TupleReply} {
			if t.Proto.SourcePort == port || t.Proto.DestinationPort == port {
				b.t.Errorf("still tracked: %+v, mark %#x", t, f.Mark)
			}
		}
	}
}

// TestLeaving: of a removed device nothing passes but what its cut flows are told with.
func TestLeaving(t *testing.T) {
	b := newBed(t, toldPolicy, nil)
	b.serve("", "portal", gw4, portalPort)
	alice := b.signIn("alice", time.Hour)
	if _, err := b.tcp("alice", gw4, 80); err != nil {
		t.Fatalf("the portal before: %v", err)
	}
	b.update(dataplane.Change{RemoveDevices: []dataplane.Device{b.device("alice")}, EndSessions: []dataplane.Session{alice}})
	begin := time.Now()
	if _, err := b.dial("alice", gw4, 80); err == nil || time.Since(begin) < patience {
		t.Errorf("a removed device asks for the portal: %v after %v; want no answer at all", err, time.Since(begin))
	}
	b.update(dataplane.Change{PutDevices: []dataplane.Device{b.device("alice")}})
	if _, err := b.tcp("alice", gw4, 80); err != nil {
		t.Errorf("the portal of a device that came back: %v", err)
	}
	if difference, err := b.f.verify(); err != nil || difference != "" {
		t.Errorf("the kernel's table differs from the state: %s %v", difference, err)
	}
}
