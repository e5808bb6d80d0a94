package filter

import (
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"vpnd/acl/rules"
	"vpnd/internal/dataplane"
)

// TestSwap: while policies alternate a hundred times, a flow that both allow is never
// interrupted, one that neither allows never passes, and one that a policy takes away is
// dead at once. These are the sockets of real ends; TestSwapUnderFire looks at packets.
func TestSwap(t *testing.T) {
	b := newBed(t, swapped[0], nil)
	b.serveWiki()
	one, two := b.state.Rules, b.compile(swapped[1])
	s := b.signIn("alice", time.Hour)
	his := b.signIn("bob", time.Hour)
	defer func() { b.signOut(s); b.signOut(his) }()

	stop := make(chan struct{})
	var wg, arrivals sync.WaitGroup
	var listeners []net.PacketConn
	defer func() {
		close(stop)
		wg.Wait()
		for _, pc := range listeners {
			_ = pc.Close()
		}
		arrivals.Wait()
	}()
	until := func(fn func() bool) {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				if !fn() {
					return
				}
			}
		})
	}
	for _, wiki := range []netip.Addr{wiki4, wiki6} {
		b.serve("wiki", "wiki", wiki, 25)
		for _, both := range []net.Conn{b.dialUDP("alice", wiki, 53), b.open("alice", wiki, 443)} {
			what := both.RemoteAddr().Network() + " to " + both.RemoteAddr().String()
			until(func() bool {
				begin := time.Now()
				// A busy machine may be slow; a datagram that was dropped never comes, and a
				// segment that was refused resets the connection.
				_ = both.SetDeadline(begin.Add(5 * time.Second))
				_, err := both.Write([]byte("ping"))
				if err == nil {
					_, err = both.Read(make([]byte, 100))
				}
				if err != nil {
					t.Errorf("%s, which both allow: %v", what, err)
				}
				if d := time.Since(begin); d > patience {
					t.Logf("%s, which both allow, took %v", what, d)
				}
				return err == nil
			})
		}
		// What neither allows is looked for where it would arrive.
		pc, err := in(b, "wiki", func() (net.PacketConn, error) {
			return net.ListenPacket("udp", netip.AddrPortFrom(wiki, 5353).String())
		})
		if err != nil {
			t.Fatal(err)
		}
		arrivals.Go(func() {
			if n, from, err := pc.ReadFrom(make([]byte, 10)); err == nil {
				t.Errorf("%d bytes came from %s, which neither allows", n, from)
			}
		})
		listeners = append(listeners, pc)
		neither := b.dialUDP("bob", wiki, 5353)
		until(func() bool {
			_, _ = neither.Write([]byte("x")) // refusals come back as errors
			time.Sleep(100 * time.Microsecond)
			return true
		})
	}
	for i := range 100 {
		ruleset := []*rules.Ruleset{two, one}[i%2]
		if ruleset == two && i%10 == 0 {
			c4, c6 := b.open("alice", wiki4, 25), b.open("alice", wiki6, 25)
			b.alive("before", c4)
			b.alive("before", c6)
			b.update(dataplane.Change{Rules: ruleset})
			b.dead("after it was taken away", c4)
			b.dead("after it was taken away", c6)
			continue
		}
		b.update(dataplane.Change{Rules: ruleset})
	}
}
