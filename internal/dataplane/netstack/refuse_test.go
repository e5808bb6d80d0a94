package netstack

import (
	"net/netip"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// Of each flow the last reset that was over the limit is sent, a little later.
func TestLateResets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var l lateResets
		var mu sync.Mutex
		sent := map[string]int{}
		send := func(b []byte) { mu.Lock(); sent[string(b)]++; mu.Unlock() }
		count := func(s string) int { mu.Lock(); defer mu.Unlock(); return sent[s] }
		key := func(port uint16) flowKey {
			return flowKey{src: netip.AddrPortFrom(netip.MustParseAddr("10.77.0.2"), port), proto: protoTCP}
		}
		for range 1000 {
			l.add(key(1), []byte("early"), send)
		}
		l.add(key(2), []byte("other"), send)
		l.add(key(1), []byte("last"), send)
		for port := range uint16(1000) {
			l.add(key(100+port), []byte("many"), send)
		}
		if n := count("early") + count("other") + count("last") + count("many"); n != 0 {
			t.Errorf("%d sent at once", n)
		}
		time.Sleep(latePause + time.Millisecond)
		synctest.Wait()
		for s, want := range map[string]int{"last": 1, "other": 1, "early": 0, "many": lateFlows - 2} {
			if n := count(s); n != want {
				t.Errorf("%q was sent %d times, want %d", s, n, want)
			}
		}
		l.add(key(1), []byte("again"), send)
		time.Sleep(latePause + time.Millisecond)
		synctest.Wait()
		if n := count("again"); n != 1 {
			t.Errorf("the next pause sent it %d times", n)
		}
	})
}
