package filter

import (
	"encoding/binary"
	"net"
	"net/netip"
	"os/exec"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"vpnd/internal/dataplane"
)

// heard counts UDP packets that reach addr:port in ns while fn runs.
func (b *bed) heard(ns string, addr netip.Addr, port uint16, fn func()) int {
	b.t.Helper()
	pc, err := in(b, ns, func() (net.PacketConn, error) {
		return net.ListenPacket("udp", netip.AddrPortFrom(addr, port).String())
	})
	if err != nil {
		b.t.Fatal(err)
	}
	defer func() { _ = pc.Close() }()
	fn()
	n := 0
	buf := make([]byte, 100)
	for {
		_ = pc.SetReadDeadline(time.Now().Add(150 * time.Millisecond))
		if _, _, err := pc.ReadFrom(buf); err != nil {
			return n
		}
		n++
	}
}

// sendFrom sends a UDP packet from ns with a source address of choice.
func (b *bed) sendFrom(ns string, src, dst netip.Addr, port uint16) {
	b.t.Helper()
	sh(b.t, "ip -n "+ns+" addr add "+src.String()+" dev lo 2>/dev/null || true")
	c, err := in(b, ns, func() (net.Conn, error) {
		return net.DialUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(src, 0)), net.UDPAddrFromAddrPort(netip.AddrPortFrom(dst, port)))
	})
	if err != nil {
		b.t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	if _, err := c.Write([]byte("spoof")); err != nil {
		b.t.Fatal(err)
	}
}

// TestOutside: tunnel addresses are valid, and answered, on the tunnel only.
func TestOutside(t *testing.T) {
	b := newBed(t, `{
		"hosts": {"wiki": "192.168.50.2", "wiki6": "fd50::2", "all4": "0.0.0.0/0", "all6": "::/0"},
		"grants": [
			{"src": ["autogroup:member", "all4", "all6"], "dst": ["app", "wiki", "wiki6", "autogroup:member"], "ip": ["*"]},
		],
	}`, nil)
	families(t, b, func(t *testing.T, gw, alice, bob, wiki netip.Addr) {
		outside := netip.MustParseAddr("192.168.60.2")
		if alice.Is6() {
			outside = netip.MustParseAddr("fd60::2")
		}
		defer b.signOut(b.signIn("alice", time.Hour))
		if n := b.heard("wiki", wiki, 53, func() { b.sendFrom("alice", alice, wiki, 53) }); n != 1 {
			t.Fatalf("alice herself: %d packets arrive", n)
		}
		if n := b.heard("wiki", wiki, 53, func() { b.sendFrom("stranger", alice, wiki, 53) }); n != 0 {
			t.Error("a stranger with alice's address reaches the wiki")
		}
		if n := b.heard("", gw, 9000, func() { b.sendFrom("stranger", outside, gw, 9000) }); n != 0 {
			t.Error("a stranger reaches the gateway's tunnel address")
		}
		if n := b.heard("", gw, 9000, func() { b.sendFrom("stranger", alice, gw, 9000) }); n != 0 {
			t.Error("a stranger with alice's address reaches the gateway's tunnel address")
		}
		// Inside, a source that is nobody's and one that is the gateway's own.
		nobody, routed := netip.MustParseAddr("10.77.9.9"), netip.MustParseAddr("192.168.50.77")
		if alice.Is6() {
			nobody, routed = netip.MustParseAddr("fd77::99"), netip.MustParseAddr("fd50::77")
		}
		for _, src := range []netip.Addr{nobody, routed} {
			if n := b.heard("wiki", wiki, 53, func() { b.sendFrom("alice", src, wiki, 53) }); n != 0 {
				t.Errorf("%s from inside the tunnel reaches the wiki", src)
			}
		}
	})
}

// TestPeers: devices do not reach each other unless granted, and both are signed in.
func TestPeers(t *testing.T) {
	b := newBed(t, `{"grants": [{"src": ["alice"], "dst": ["bob"], "ip": ["tcp:7000", "icmp"]}]}`, nil)
	b.serve("bob", "bob", bob4, 7000)
	b.serve("bob", "bob", bob6, 7000)
	b.serve("alice", "alice", alice4, 7000)
	b.serve("alice", "alice", alice6, 7000)
	families(t, b, func(t *testing.T, gw, alice, bob, wiki netip.Addr) {
		got, err := b.tcp("alice", bob, 7000)
		b.refused("nobody is signed in", got, err)
		s := b.signIn("alice", time.Hour)
		got, err = b.tcp("alice", bob, 7000)
		b.refused("bob is not signed in", got, err)
		his := b.signIn("bob", time.Hour)
		c := b.open("alice", bob, 7000)
		b.alive("granted", c)
		if err := b.ping("alice", bob); err != nil {
			t.Error(err)
		}
		got, err = b.tcp("bob", alice, 7000)
		b.refused("the other way", got, err)
		b.signOut(his)
		b.dead("bob has signed out", c)
		his = b.signIn("bob", time.Hour)
		b.dead("bob has signed in again", c)
		b.signOut(s)
		b.signOut(his)
	})
}

// TestOff: an "off" grant asks for an enabled device and for nothing else.
func TestOff(t *testing.T) {
	b := newBed(t, `{
		"hosts": {"wiki": "192.168.50.2", "wiki6": "fd50::2"},
		"grants": [
			{"src": ["alice"], "dst": ["wiki", "wiki6"], "ip": ["tcp:80"], "mfa": "off"},
			{"src": ["alice"], "dst": ["wiki", "wiki6"], "ip": ["tcp:443"]},
		],
	}`, nil)
	b.serveWiki()
	b.serve("", "portal", gw4, portalPort)
	b.serve("", "portal", gw6, portalPort)
	families(t, b, func(t *testing.T, gw, alice, bob, wiki netip.Addr) {
		c := b.open("alice", wiki, 80) // not caught by the captive portal
		got, err := b.tcp("alice", wiki, 443)
		b.refused("without a session", got, err)
		got, err = b.tcp("bob", wiki, 80)
		b.want("bob is caught", "portal", got, err)
		s := b.signIn("alice", time.Hour)
		b.alive("off, signed in", c)
		with := b.open("alice", wiki, 80)
		b.signOut(s)
		b.alive("off, signed out", c)
		b.alive("opened with a session", b.open("alice", wiki, 80))
		b.dead("a session's flows end with it", with)
		device := b.device("alice")
		b.update(dataplane.Change{RemoveDevices: []dataplane.Device{device}})
		b.dead("device disabled", c)
		got, err = b.tcp("alice", wiki, 80)
		if err == nil && got != "portal" {
			t.Errorf("device disabled: got %q", got)
		}
		b.update(dataplane.Change{PutDevices: []dataplane.Device{device}, Rules: b.state.Rules})
		b.dead("device enabled again", c)
		b.alive("a new flow", b.open("alice", wiki, 80))
	})
}

// TestFromResource: flows that a resource begins need a grant and the device's session.
func TestFromResource(t *testing.T) {
	b := newBed(t, `{
		"hosts": {"wiki": "192.168.50.2", "wiki6": "fd50::2"},
		"grants": [{"src": ["wiki", "wiki6"], "dst": ["alice"], "ip": ["tcp:7000"]}],
	}`, nil)
	b.serve("alice", "alice", alice4, 7000)
	b.serve("alice", "alice", alice6, 7000)
	b.serve("bob", "bob", bob4, 7000)
	b.serve("bob", "bob", bob6, 7000)
	families(t, b, func(t *testing.T, gw, alice, bob, wiki netip.Addr) {
		defer b.signOut(b.signIn("bob", time.Hour))
		got, err := b.tcp("wiki", alice, 7000)
		b.refused("before sign-in", got, err)
		s := b.signIn("alice", time.Hour)
		c := b.open("wiki", alice, 7000)
		b.alive("signed in", c)
		got, err = b.tcp("wiki", bob, 7000)
		b.refused("not granted", got, err)
		got, err = b.tcp("", alice, 7000)
		b.refused("from the gateway itself", got, err)
		got, err = b.tcp("stranger", alice, 7000)
		b.refused("from a stranger", got, err)
		b.signOut(s)
		b.dead("signed out", c)
		s = b.signIn("alice", time.Hour)
		b.dead("signed in again", c)
		b.signOut(s)
	})
}

// TestFromGateway: what the gateway itself begins needs the same. (Its address is one of
// the tunnel's, and no device's.)
func TestFromGateway(t *testing.T) {
	b := newBed(t, `{"grants": [
		{"src": ["app"], "dst": ["alice"], "ip": ["tcp:7000"]},
		{"src": ["app"], "dst": ["alice"], "ip": ["tcp:7001"], "mfa": "off"},
	]}`, nil)
	for _, alice := range []netip.Addr{alice4, alice6} {
		b.serve("alice", "alice", alice, 7000)
		b.serve("alice", "alice", alice, 7001)
		b.serve("alice", "alice", alice, 7002)
	}
	families(t, b, func(t *testing.T, gw, alice, bob, wiki netip.Addr) {
		got, err := b.tcp("", alice, 7000)
		b.refused("before sign-in", got, err)
		got, err = b.tcp("", alice, 7001)
		b.want("without a code", "alice", got, err)
		s := b.signIn("alice", time.Hour)
		c := b.open("", alice, 7000)
		b.alive("signed in", c)
		got, err = b.tcp("", alice, 7002)
		b.refused("not granted", got, err)
		b.signOut(s)
		b.dead("signed out", c)
		s = b.signIn("alice", time.Hour)
		b.dead("signed in again", c)
		b.signOut(s)
	})
}

// TestMidstream: a TCP packet that is not a SYN starts no flow.
func TestMidstream(t *testing.T) {
	b := newBed(t, simple, nil)
	defer b.signOut(b.signIn("alice", time.Hour))
	families(t, b, func(t *testing.T, gw, alice, bob, wiki netip.Addr) {
		domain := unix.AF_INET
		if wiki.Is6() {
			domain = unix.AF_INET6
		}
		listen, err := in(b, "wiki", func() (int, error) {
			return unix.Socket(domain, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_TCP)
		})
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = unix.Close(listen) }()
		_ = unix.SetsockoptTimeval(listen, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Usec: 300000})
		_, err = in(b, "alice", func() (int, error) {
			fd, err := unix.Socket(domain, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_TCP)
			if err != nil {
				return 0, err
			}
			defer func() { _ = unix.Close(fd) }()
			for _, flags := range []byte{0x10, 0x18, 0x11, 0x12, 0x00, 0x29} { // ACK, PSH+ACK, FIN+ACK, SYN+ACK, none, Xmas
				if err := sendTCP(fd, alice, wiki, 40000+uint16(flags), 443, flags); err != nil {
					return 0, err
				}
			}
			return 0, nil
		})
		if err != nil {
			t.Fatal(err)
		}
		buf := make([]byte, 1500)
		if n, _, err := unix.Recvfrom(listen, buf, 0); err == nil {
			t.Errorf("a packet of %d bytes arrives", n)
		}
		out, _ := exec.Command("conntrack", "-L", "-p", "tcp", "-f", map[bool]string{true: "ipv4", false: "ipv6"}[wiki.Is4()]).Output()
		if strings.Contains(string(out), "dport=443") {
			t.Errorf("a flow was made:\n%s", out)
		}
	})
}

// sendTCP sends a bare TCP header.
func sendTCP(fd int, src, dst netip.Addr, sport, dport uint16, flags byte) error {
	h := make([]byte, 20)
	binary.BigEndian.PutUint16(h[0:], sport)
	binary.BigEndian.PutUint16(h[2:], dport)
	h[12], h[13] = 5<<4, flags
	binary.BigEndian.PutUint16(h[14:], 1024)
	pseudo := append(append([]byte(nil), src.AsSlice()...), dst.AsSlice()...)
	pseudo = append(pseudo, 0, unix.IPPROTO_TCP, 0, 20) // the same sum for both families
	var sum uint32
	for b := append(pseudo, h...); len(b) > 0; b = b[2:] {
		sum += uint32(b[0])<<8 | uint32(b[1])
	}
	for sum>>16 != 0 {
		sum = sum&0xffff + sum>>16
	}
	binary.BigEndian.PutUint16(h[16:], ^uint16(sum))
	if dst.Is4() {
		return unix.Sendto(fd, h, 0, &unix.SockaddrInet4{Addr: dst.As4()})
	}
	return unix.Sendto(fd, h, 0, &unix.SockaddrInet6{Addr: dst.As16()})
}

// TestRefusals are answered at once: nobody waits for a timeout.
func TestRefusals(t *testing.T) {
	b := newBed(t, simple, nil)
	families(t, b, func(t *testing.T, gw, alice, bob, wiki netip.Addr) {
		for _, dst := range []netip.Addr{wiki, gw} {
			begin := time.Now()
			_, err := b.dial("alice", dst, 443)
			if err == nil || !strings.Contains(err.Error(), "refused") || time.Since(begin) > patience/2 {
				t.Errorf("tcp to %s: %v after %v", dst, err, time.Since(begin))
			}
			begin = time.Now()
			_, err = b.udp("alice", dst, 53)
			if err == nil || time.Since(begin) > patience/2 {
				t.Errorf("udp to %s: %v after %v", dst, err, time.Since(begin))
			}
		}
	})
}

// TestForward: forwarding that is not ours is left as it was found.
func TestForward(t *testing.T) {
	for _, guard := range []bool{false, true} {
		b := newBed(t, simple, func(c *Config, _ *dataplane.State) { c.GuardForward4, c.GuardForward6 = guard, guard })
		b.serveWiki()
		for _, wiki := range []netip.Addr{wiki4, wiki6} {
			got, err := b.tcp("stranger", wiki, 443)
			if guard {
				b.refused("guarded", got, err)
			} else {
				b.want("as before", "wiki", got, err)
			}
		}
		s := b.signIn("alice", time.Hour)
		got, err := b.tcp("alice", wiki4, 443)
		b.want("ours", "wiki", got, err)
		b.signOut(s)
		if guard {
			break
		}
		b.tearDown()
	}
}

// TestMasquerade: a resource sees the gateway; without it, the device.
func TestMasquerade(t *testing.T) {
	b := newBed(t, simple, nil)
	b.serve("wiki", "wiki", wiki4, 80)
	who := func(wiki netip.Addr) netip.Addr {
		t.Helper()
		l, err := in(b, "wiki", func() (net.Listener, error) { return net.Listen("tcp", netip.AddrPortFrom(wiki, 443).String()) })
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = l.Close() }()
		c, err := b.dial("alice", wiki, 443)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = c.Close() }()
		x, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = x.Close() }()
		return x.RemoteAddr().(*net.TCPAddr).AddrPort().Addr().Unmap()
	}
	for _, masquerade := range []bool{false, true} {
		b.state.Gateway.Masquerade = masquerade
		b.state.Sessions = []dataplane.Session{{Device: "alice", Addrs: b.users["alice"].Addrs, Until: time.Now().Add(time.Hour),
			Codes: []dataplane.Code{{Serial: 77, At: time.Now()}}}}
		b.set()
		want := map[netip.Addr]netip.Addr{wiki4: alice4, wiki6: alice6}
		if masquerade {
			want = map[netip.Addr]netip.Addr{wiki4: netip.MustParseAddr("192.168.50.1"), wiki6: netip.MustParseAddr("fd50::1")}
		}
		for wiki, src := range want {
			if got := who(wiki); got != src {
				t.Errorf("masquerade %v: %s sees %s, want %s", masquerade, wiki, got, src)
			}
		}
		c := b.open("alice", wiki4, 80)
		b.alive("open", c)
		b.state.Sessions = nil
		b.set()
		b.dead("revoked", c)
	}
}
