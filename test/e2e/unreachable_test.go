package e2e

import (
	"errors"
	"net"
	"syscall"
	"testing"
	"time"
)

// A client's kernel learns what the gateway says by ICMP: that nobody is at an address, and
// that a UDP flow is cut whose end only waits. Linux believes an error about a TCP connection
// only if it quotes the right sequence number. Both planes say the same.
func TestKernelIsTold(t *testing.T) {
	both(t, func(t *testing.T, w *world) {
		w.startVpnd()
		w.policy(`{"hosts": {"lan": "198.51.100.0/24", "lan6": "2001:db8:2::/64"}, "grants": [{"src": ["alice"], "dst": ["lan", "lan6"], "ip": ["tcp:80", "udp:7"]}]}`)
		alice := w.person("alice", "phone")
		alice.signIn()

		for _, nobody := range []string{"198.51.100.77:80", "[2001:db8:2::77]:80"} {
			err := alice.host.in(func() error {
				c, err := net.DialTimeout("tcp", nobody, 15*time.Second)
				if err == nil {
					c.Close()
				}
				return err
			})
			if !errors.Is(err, syscall.EHOSTUNREACH) {
				t.Errorf("connecting to %s, where nobody is: %v, want %v", nobody, err, syscall.EHOSTUNREACH)
			}
		}

		for echo, want := range map[string]error{
			lan4 + ":7":        syscall.EHOSTUNREACH, // what Linux makes of ICMP's "prohibited"
			"[" + lan6 + "]:7": syscall.EACCES,       // and of ICMPv6's
		} {
			server := w.lan.echoUDP(echo)
			c, err := alice.host.dialer(t.Context(), "udp", echo)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { c.Close(); server.Close() })
			exchange(t, c)
			told := make(chan error, 1)
			go func() {
				c.SetReadDeadline(time.Now().Add(10 * time.Second))
				_, err := c.Read(make([]byte, 8))
				told <- err
			}()
			w.vpnctl("session", "end", "alice", "--yes")
			if err := <-told; !errors.Is(err, want) {
				t.Errorf("the flow to %s was cut, and its client's kernel says %v, want %v", echo, err, want)
			}
			alice.signIn()
		}
	})
}

// echoUDP answers datagrams in a host.
func (h *host) echoUDP(at string) net.PacketConn {
	h.t.Helper()
	var p net.PacketConn
	if err := h.in(func() (err error) { p, err = net.ListenPacket("udp", at); return err }); err != nil {
		h.t.Fatal(err)
	}
	go func() {
		b := make([]byte, 2048)
		for {
			n, from, err := p.ReadFrom(b)
			if err != nil {
				return
			}
			p.WriteTo(b[:n], from)
		}
	}()
	return p
}

// exchange sends a datagram and waits for its echo; the first ones may be lost.
func exchange(t *testing.T, c net.Conn) {
	t.Helper()
	b := make([]byte, 8)
	eventually(t, 10*time.Second, "an echo comes", func() error {
		if _, err := c.Write([]byte("hello")); err != nil {
			return err
		}
		c.SetReadDeadline(time.Now().Add(time.Second))
		_, err := c.Read(b)
		return err
	})
}
