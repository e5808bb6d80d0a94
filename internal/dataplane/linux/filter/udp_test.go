package filter

import (
	"net"
	"net/netip"
	"testing"
	"time"

	"vpnd/internal/dataplane"
)

// timeout is how long conntrack will keep the flow from alice to addr.
func (b *bed) timeout(addr netip.Addr) time.Duration {
	b.t.Helper()
	conn, err := dialConntrack()
	if err != nil {
		b.t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	flows, err := conn.Dump(nil)
	if err != nil {
		b.t.Fatal(err)
	}
	for _, f := range flows {
		if f.TupleOrig.IP.DestinationAddress == addr && f.TupleOrig.Proto.Protocol == 17 {
			return time.Duration(f.Timeout) * time.Second
		}
	}
	b.t.Errorf("there is no flow to %s", addr)
	return 0
}

// TestUDPIdle: the same as in netstack, whose numbers are the kernel's: 30 s for a question
// with its answer, 120 s for a stream.
func TestUDPIdle(t *testing.T) {
	b := newBed(t, simple, nil)
	for _, w := range []netip.Addr{wiki4, wiki6} {
		b.serve("wiki", "wiki", w, 53)
	}
	families(t, b, func(t *testing.T, gw, alice, bob, wiki netip.Addr) {
		defer b.signOut(b.signIn("alice", time.Hour))
		c := b.dialUDP("alice", wiki, 53)
		b.alive("question and answer", c)
		if d := b.timeout(wiki); d > 30*time.Second || d < 20*time.Second {
			t.Errorf("question and answer are kept for %v", d)
		}
		time.Sleep(2200 * time.Millisecond)
		b.alive("a stream", c)
		if d := b.timeout(wiki); d > 120*time.Second || d < 110*time.Second {
			t.Errorf("a stream is kept for %v", d)
		}
	})
}

// TestAnswersFromAnotherPort: a server that answers from a port that was not asked, as
// TFTP's does, begins a flow of its own. It needs a grant of its own, and an address by
// which it can begin: the device's.
func TestAnswersFromAnotherPort(t *testing.T) {
	const policy = `{"hosts": {"wiki": "192.168.50.2", "wiki6": "fd50::2"}, "grants": [
		{"src": ["alice"], "dst": ["wiki", "wiki6"], "ip": ["udp:69"]}`
	answered := func(b *bed, wiki netip.Addr) bool {
		b.t.Helper()
		server, err := in(b, "wiki", func() (net.PacketConn, error) {
			return net.ListenPacket("udp", netip.AddrPortFrom(wiki, 69).String())
		})
		if err != nil {
			b.t.Fatal(err)
		}
		defer func() { _ = server.Close() }()
		go func() {
			buf := make([]byte, 100)
			_, from, err := server.ReadFrom(buf)
			if err != nil {
				return
			}
			other, err := in(b, "wiki", func() (net.PacketConn, error) { return net.ListenPacket("udp", netip.AddrPortFrom(wiki, 0).String()) })
			if err == nil {
				_, _ = other.WriteTo([]byte("data"), from)
				_ = other.Close()
			}
		}()
		client, err := in(b, "alice", func() (net.PacketConn, error) { return net.ListenPacket("udp", ":0") })
		if err != nil {
			b.t.Fatal(err)
		}
		defer func() { _ = client.Close() }()
		if _, err := client.WriteTo([]byte("read"), net.UDPAddrFromAddrPort(netip.AddrPortFrom(wiki, 69))); err != nil {
			b.t.Fatal(err)
		}
		_ = client.SetReadDeadline(time.Now().Add(patience))
		_, _, err = client.ReadFrom(make([]byte, 100))
		return err == nil
	}
	for _, x := range []struct {
		name, grant string
		masquerade  bool
		want        bool
	}{
		{"no grant back", "]}", false, false},
		{"a grant back", `, {"src": ["wiki", "wiki6"], "dst": ["alice"], "ip": ["udp:1024-65535"]}]}`, false, true},
		{"a grant back, masqueraded", `, {"src": ["wiki", "wiki6"], "dst": ["alice"], "ip": ["udp:1024-65535"]}]}`, true, false},
	} {
		t.Run(x.name, func(t *testing.T) {
			b := newBed(t, policy+x.grant, func(_ *Config, s *dataplane.State) { s.Gateway.Masquerade = x.masquerade })
			defer b.tearDown()
			b.signIn("alice", time.Hour)
			for _, w := range []netip.Addr{wiki4, wiki6} {
				if got := answered(b, w); got != x.want {
					t.Errorf("from %s the answer comes: %v, want %v", w, got, x.want)
				}
			}
		})
	}
}
