package filter

import (
	"net"
	"net/netip"
	"testing"
	"time"

	"vpnd/internal/dataplane"
)

// open connects and reads the server's greeting.
func (b *bed) open(ns string, addr netip.Addr, port uint16) net.Conn {
	b.t.Helper()
	c, err := b.dial(ns, addr, port)
	if err != nil {
		b.t.Fatalf("connect from %s to %s:%d: %v", ns, addr, port, err)
	}
	b.t.Cleanup(func() { _ = c.Close() })
	buf := make([]byte, 100)
	_ = c.SetReadDeadline(time.Now().Add(patience))
	if _, err := c.Read(buf); err != nil {
		b.t.Fatalf("greeting of %s:%d: %v", addr, port, err)
	}
	return c
}

func (b *bed) alive(what string, c net.Conn) {
	b.t.Helper()
	if got, err := ask(c, "ping"); err != nil || (got != "ping" && got != "wiki:ping") {
		b.t.Errorf("%s: the flow is dead: %q, %v", what, got, err)
	}
}

func (b *bed) dead(what string, c net.Conn) {
	b.t.Helper()
	if got, err := ask(c, "ping"); err == nil {
		b.t.Errorf("%s: the flow lives: %q", what, got)
	}
}

func (b *bed) serveWiki() {
	for _, w := range []netip.Addr{wiki4, wiki6} {
		for _, port := range []uint16{80, 443, 53} {
			b.serve("wiki", "wiki", w, port)
		}
	}
}

// dialUDP gives a connected UDP socket in ns.
func (b *bed) dialUDP(ns string, addr netip.Addr, port uint16) net.Conn {
	b.t.Helper()
	c, err := in(b, ns, func() (net.Conn, error) { return net.Dial("udp", netip.AddrPortFrom(addr, port).String()) })
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() { _ = c.Close() })
	return c
}

// TestExpiry: nobody does anything when the session ends; the kernel alone closes.
func TestExpiry(t *testing.T) {
	b := newBed(t, simple, nil)
	b.serveWiki()
	families(t, b, func(t *testing.T, gw, alice, bob, wiki netip.Addr) {
		s := b.signIn("alice", 900*time.Millisecond)
		tcp, udp := b.open("alice", wiki, 443), b.dialUDP("alice", wiki, 53)
		b.alive("tcp before the end", tcp)
		b.alive("udp before the end", udp)
		time.Sleep(time.Until(s.Until))
		b.dead("tcp at the end", tcp)
		b.dead("udp at the end", udp)
		got, err := b.tcp("alice", wiki, 443)
		b.refused("a new connection after the end", got, err)
		// A new code opens new flows and revives no old one.
		b.signOut(b.signIn("alice", time.Hour))
		b.dead("tcp after the next sign-out", tcp)
		s = b.signIn("alice", time.Hour)
		b.dead("tcp after another code", tcp)
		b.alive("udp anew", udp)
		b.signOut(s)
	})
}

// TestRenewal: a code given in time keeps what is open, also when it races the end.
func TestRenewal(t *testing.T) {
	for name, tweak := range map[string]func(*Config, *dataplane.State){
		"destroy": nil,
		"delete":  func(c *Config, _ *dataplane.State) { c.noDestroy = true },
		"slow":    func(c *Config, _ *dataplane.State) { c.noLabels = true },
	} {
		t.Run(name, func(t *testing.T) {
			b := newBed(t, simple, tweak)
			b.serveWiki()
			s := b.signIn("alice", time.Second)
			c := b.open("alice", wiki4, 443)
			first := s.Codes[0]
			for range 3 {
				time.Sleep(600 * time.Millisecond)
				b.serno++
				s.Until = time.Now().Add(time.Second)
				s.Codes = []dataplane.Code{first, {Serial: b.serno, At: time.Now()}}
				b.update(dataplane.Change{PutSessions: []dataplane.Session{s}})
				b.alive("after a renewal", c)
			}
			// Renewals around the very instant of expiry must never fail.
			for i := range 60 {
				s.Until = time.Now().Add(25 * time.Millisecond)
				b.update(dataplane.Change{PutSessions: []dataplane.Session{s}})
				time.Sleep(time.Duration(5+i%20) * time.Millisecond)
			}
			s.Until = time.Now().Add(time.Minute)
			b.update(dataplane.Change{PutSessions: []dataplane.Session{s}})
			got, err := b.tcp("alice", wiki4, 443)
			b.want("after the races", "wiki", got, err)
		})
	}
}

// TestRevocation: both directions of open flows die at once, the others live.
func TestRevocation(t *testing.T) {
	b := newBed(t, `{
		"hosts": {"wiki": "192.168.50.2", "wiki6": "fd50::2"},
		"grants": [{"src": ["autogroup:member"], "dst": ["wiki", "wiki6"], "ip": ["tcp:443", "udp:53"]}],
	}`, nil)
	b.serveWiki()
	families(t, b, func(t *testing.T, gw, alice, bob, wiki netip.Addr) {
		// A server that sends without being asked.
		pc, err := in(b, "wiki", func() (net.PacketConn, error) {
			return net.ListenPacket("udp", netip.AddrPortFrom(wiki, 5353).String())
		})
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = pc.Close() }()
		l, err := in(b, "wiki", func() (net.Listener, error) { return net.Listen("tcp", netip.AddrPortFrom(wiki, 8443).String()) })
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = l.Close() }()

		s, other := b.signIn("alice", time.Hour), b.signIn("bob", time.Hour)
		mine, his := b.open("alice", wiki, 443), b.open("bob", wiki, 443)
		udp := b.dialUDP("alice", wiki, 53)
		b.alive("alice", mine)
		b.alive("alice's udp", udp)
		b.alive("bob", his)
		b.signOut(s)
		b.dead("alice", mine)
		b.dead("alice's udp", udp)
		b.alive("bob", his)
		s = b.signIn("alice", time.Hour)
		b.dead("alice after a new code", mine)
		b.signOut(s)
		b.signOut(other)
	})
}

// TestRevocationFromResource: what the resource still sends does not arrive.
func TestRevocationFromResource(t *testing.T) {
	b := newBed(t, simple, nil)
	families(t, b, func(t *testing.T, gw, alice, bob, wiki netip.Addr) {
		pc, err := in(b, "wiki", func() (net.PacketConn, error) { return net.ListenPacket("udp", netip.AddrPortFrom(wiki, 53).String()) })
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = pc.Close() }()
		s := b.signIn("alice", time.Hour)
		c := b.dialUDP("alice", wiki, 53)
		if _, err := c.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
		buf := make([]byte, 100)
		_ = pc.SetReadDeadline(time.Now().Add(time.Second))
		_, from, err := pc.ReadFrom(buf)
		if err != nil {
			t.Fatal(err)
		}
		stop := make(chan struct{})
		go func() {
			for {
				select {
				case <-stop:
					return
				case <-time.After(time.Millisecond):
					_, _ = pc.WriteTo([]byte("stream"), from)
				}
			}
		}()
		defer close(stop)
		_ = c.SetReadDeadline(time.Now().Add(time.Second))
		if _, err := c.Read(buf); err != nil {
			t.Fatal("the stream does not arrive:", err)
		}
		b.signOut(s)
		// What was queued before the revocation may still be read; nothing sent later.
		_ = c.SetReadDeadline(time.Now().Add(20 * time.Millisecond))
		for err == nil {
			_, err = c.Read(buf)
		}
		_ = c.SetReadDeadline(time.Now().Add(200 * time.Millisecond))
		if n, err := c.Read(buf); err == nil {
			t.Errorf("%q arrives after the revocation", buf[:n])
		}
	})
}

// TestFreshness: a grant with "mfa" closes while the session's other grants stay.
func TestFreshness(t *testing.T) {
	b := newBed(t, `{
		"hosts": {"wiki": "192.168.50.2", "wiki6": "fd50::2"},
		"grants": [
			{"src": ["alice"], "dst": ["wiki", "wiki6"], "ip": ["tcp:80"]},
			{"src": ["alice"], "dst": ["wiki", "wiki6"], "ip": ["tcp:443", "udp:53"], "mfa": "2s"},
		],
	}`, nil)
	b.serveWiki()
	families(t, b, func(t *testing.T, gw, alice, bob, wiki netip.Addr) {
		s := b.signIn("alice", time.Hour)
		defer func() { b.signOut(s) }()
		code := func() {
			b.serno++
			s.Codes = append(s.Codes, dataplane.Code{Serial: b.serno, At: time.Now()})
			b.update(dataplane.Change{PutSessions: []dataplane.Session{s}})
		}
		plain, fresh, udp := b.open("alice", wiki, 80), b.open("alice", wiki, 443), b.dialUDP("alice", wiki, 53)
		b.alive("udp", udp)
		time.Sleep(1200 * time.Millisecond)
		code()
		time.Sleep(1200 * time.Millisecond) // 2.4 s after the first code
		b.alive("fresh, after a code in time", fresh)
		b.alive("udp, after a code in time", udp)
		time.Sleep(1000 * time.Millisecond)
		b.dead("fresh, too late", fresh)
		b.dead("udp, too late", udp)
		b.alive("plain", plain)
		got, err := b.tcp("alice", wiki, 443)
		b.refused("a new connection with an old code", got, err)
		code()
		b.dead("fresh, after a late code", fresh)
		b.alive("plain, after a late code", plain)
		b.alive("udp anew", udp)
		b.alive("a new connection", b.open("alice", wiki, 443))
	})
}
