package reconcile

import (
	"testing"
	"testing/synctest"
	"time"

	"vpnd/internal/dataplane"
	"vpnd/peers"
)

func (m *model) has(k peers.Key) (dataplane.Device, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	d, ok := m.devices[dataplane.Key(k)]
	return d, ok
}

// A self-test is a peer that the policy does not know, and it goes with its command, or with
// its minute though nobody commits anything.
func TestSelfTest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.start = time.Now().UTC() // synctest's clock
		b.rec.Now = time.Now
		b.must(peers.Upgrade{Level: 4})
		b.user("u1")
		first, second := b.key(), b.key()
		begin := func(k peers.Key) {
			t.Helper()
			b.past.Store(int64(time.Since(b.start)))
			b.must(peers.SelfTestBegin{PublicKey: k})
			b.check("the beginning of a self-test")
		}
		begin(first)
		d, ok := b.plane.has(first)
		if !ok || len(d.Addrs) != 2 || d.PresharedKey != (dataplane.Key{}) {
			t.Fatalf("the plane has %+v, %v", d, ok)
		}
		if _, _, known := b.rec.Rules().Device(d.Addrs[0]); known {
			t.Error("the policy knows the self-test")
		}
		b.must(peers.SelfTestEnd{PublicKey: first})
		b.check("its end")
		if _, ok := b.plane.has(first); ok {
			t.Error("it is still there")
		}

		begin(second)
		time.Sleep(59 * time.Second)
		if _, ok := b.plane.has(second); !ok {
			t.Error("it ended early")
		}
		time.Sleep(2 * time.Second)
		if _, ok := b.plane.has(second); ok {
			t.Error("it has outlived its minute")
		}
		b.must(peers.Expire{})
		b.past.Store(int64(time.Since(b.start)))
		b.check("its removal")
	})
}

// A vpnd that starts after a self-test's end does not bring it back; before its end, it is
// there for no more than the minute, whatever became of the clock.
func TestSelfTestAfterAStart(t *testing.T) {
	b := newBench(t)
	b.must(peers.Upgrade{Level: 4})
	k := b.key()
	b.must(peers.SelfTestBegin{PublicKey: k})
	view := b.state.View()
	settings, _ := view.Settings()
	for past, want := range map[time.Duration]time.Duration{0: time.Minute, 59 * time.Second: time.Second, time.Minute: 0, -24 * time.Hour: time.Minute} {
		b.past.Store(int64(past))
		after := &model{}
		r := b.reconciler(after)
		if _, err := r.set(t.Context(), view, settings); err != nil {
			t.Fatal(err)
		}
		_, there := after.has(k)
		left := max(r.tests.until[dataplane.Key(k)].Sub(b.now()), 0)
		if there != (want > 0) || (left-want).Abs() > time.Millisecond {
			t.Errorf("started %v after its beginning: %v, for %v", past, there, left)
		}
	}
}
