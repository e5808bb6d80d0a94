package reconcile

import (
	"net/netip"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"vpnd/acl/language"
	"vpnd/acl/rules"
	"vpnd/peers"
)

// A clock that was set back while vpnd was away makes no session longer than it was.
func TestClockSetBack(t *testing.T) {
	b := newBench(t)
	_, device := b.user("u1")
	b.must(peers.Login{Device: device, Step: 2})
	b.wait()
	b.past.Add(-int64(24 * time.Hour))
	after := &model{}
	r := b.reconciler(after)
	view := b.state.View()
	settings, _ := view.Settings()
	if _, err := r.set(t.Context(), view, settings); err != nil {
		t.Fatal(err)
	}
	s, ok := after.sessions[device.String()]
	if !ok {
		t.Fatal("the session is gone")
	}
	if left := s.Until.Sub(b.now()); left > settings.Session {
		t.Errorf("with the clock set back a session of %v has %v left", settings.Session, left)
	}
	if age := b.now().Sub(s.Codes[0].At); age < 0 {
		t.Errorf("its code is of %v in the future", -age)
	}
}

// A clock that is set forward, past the end of a grant, is noticed in seconds.
func TestClockSetForward(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		var step atomic.Int64
		p, err := language.Parse([]byte(`{"grants": [{"src": ["*"], "dst": ["10.1.0.0/16"], "ip": ["*"], "expires": "` +
			start.Add(48*time.Hour).UTC().Format(time.RFC3339) + `"}]}`))
		if err != nil {
			t.Fatal(err)
		}
		ruleset, err := rules.Compile(p, rules.Options{Network: []netip.Prefix{netip.MustParsePrefix("10.77.0.0/16")}, Session: time.Hour}, nil)
		if err != nil {
			t.Fatal(err)
		}
		r := New(Config{Now: func() time.Time { return time.Now().Add(time.Duration(step.Load())) }})
		view := peers.New().View()
		woke := make(chan time.Duration)
		go func() {
			if err := r.sleep(t.Context(), view, ruleset); err == nil {
				woke <- time.Since(start)
			}
		}()
		time.Sleep(time.Minute)
		step.Store(int64(72 * time.Hour))
		synctest.Wait()
		if after := <-woke; after > 2*time.Minute {
			t.Errorf("it woke after %v", after)
		}
	})
}

// It wakes at the instant at which hours begin, and when they end.
func TestHoursWake(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now().UTC().Truncate(time.Hour)
		from, to := start.Add(2*time.Hour), start.Add(3*time.Hour)
		p, err := language.Parse([]byte(`{"grants": [{"src": ["*"], "dst": ["10.1.0.0/16"], "ip": ["*"], "hours": "` +
			from.Format("Mon 15:04") + to.Format("-15:04") + ` UTC"}]}`))
		if err != nil {
			t.Fatal(err)
		}
		ruleset, err := rules.Compile(p, rules.Options{Network: []netip.Prefix{netip.MustParsePrefix("10.77.0.0/16")}, Session: time.Hour}, nil)
		if err != nil {
			t.Fatal(err)
		}
		r := New(Config{Now: time.Now})
		view := peers.New().View()
		for _, want := range []time.Time{from, to} {
			if err := r.sleep(t.Context(), view, ruleset); err != nil {
				t.Fatal(err)
			}
			if got := time.Now(); !got.Equal(want) {
				t.Errorf("it woke at %v, want %v", got, want)
			}
		}
	})
}
