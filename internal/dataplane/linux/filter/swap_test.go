package filter

import (
	"sync"
	"testing"
	"time"

	"vpnd/acl"
	"vpnd/internal/dataplane"
)

// TestSwap: while policies alternate a hundred times, a flow that both allow is never
// interrupted, one that neither allows never passes, and one that a policy takes away is
// dead at once.
func TestSwap(t *testing.T) {
	b := newBed(t, `{"hosts": {"wiki": "192.168.50.2"}, "grants": [
		{"src": ["alice"], "dst": ["wiki"], "ip": ["tcp:443", "udp:53"]},
	]}`, nil)
	b.serveWiki()
	one := b.state.Rules
	two := b.compile(`{"hosts": {"wiki": "192.168.50.2", "net": "192.168.50.0/24", "far": "192.168.99.0/25"}, "grants": [
		{"src": ["bob"], "dst": ["far"], "ip": ["tcp:1-999"], "mfa": "5m"},
		{"src": ["alice", "bob"], "dst": ["wiki"], "ip": ["udp:50-60"]},
		{"src": ["alice"], "dst": ["net"], "ip": ["icmp", "tcp:80"]},
	]}`)
	s := b.signIn("alice", time.Hour)
	his := b.signIn("bob", time.Hour)
	defer func() { b.signOut(s); b.signOut(his) }()

	stop := make(chan struct{})
	var wg sync.WaitGroup
	both, neither := b.dialUDP("alice", wiki4, 53), b.dialUDP("bob", wiki4, 5353)
	wg.Go(func() {
		for n := 0; ; n++ {
			select {
			case <-stop:
				return
			default:
			}
			begin := time.Now()
			if _, err := both.Write([]byte("ping")); err != nil {
				t.Errorf("a flow that both allow, round %d: %v", n, err)
				return
			}
			// A busy machine may be slow; a packet that was dropped never comes.
			_ = both.SetReadDeadline(begin.Add(5 * time.Second))
			if _, err := both.Read(make([]byte, 100)); err != nil {
				t.Errorf("a flow that both allow, round %d: %v", n, err)
				return
			}
			if d := time.Since(begin); d > patience {
				t.Logf("a flow that both allow took %v", d)
			}
		}
	})
	wg.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
			}
			_ = neither.SetDeadline(time.Now().Add(10 * time.Millisecond))
			_, _ = neither.Write([]byte("x"))
			buf := make([]byte, 10)
			if n, err := neither.Read(buf); err == nil {
				t.Errorf("a flow that neither allows: %q", buf[:n])
				return
			}
		}
	})
	b.serve("wiki", "wiki", wiki4, 5353)
	for i := range 100 {
		rules := []*acl.Ruleset{two, one}[i%2]
		if rules == two && i%10 == 0 {
			c := b.open("alice", wiki4, 443)
			b.alive("before", c)
			b.update(dataplane.Change{Rules: rules})
			b.dead("after it was taken away", c)
			continue
		}
		b.update(dataplane.Change{Rules: rules})
	}
	close(stop)
	wg.Wait()
}
