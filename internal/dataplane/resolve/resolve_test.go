package resolve

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

func addrs(list ...string) []netip.Addr {
	var out []netip.Addr
	for _, s := range list {
		out = append(out, netip.MustParseAddr(s))
	}
	return out
}

// script answers questions one by one, and notes when they came.
type script struct {
	mu      sync.Mutex
	start   time.Time
	answers []any // Answer or error; the last one stays
	asked   []time.Duration
	events  []string
}

func (s *script) lookup(context.Context, string) (Answer, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asked = append(s.asked, time.Since(s.start))
	a := s.answers[0]
	if len(s.answers) > 1 {
		s.answers = s.answers[1:]
	}
	if err, ok := a.(error); ok {
		return Answer{}, err
	}
	return a.(Answer), nil
}

func (s *script) changed(name string, list []netip.Addr, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.events = append(s.events, fmt.Sprintf("%v %s %v %v", time.Since(s.start), name, list, err))
}

func TestFollow(t *testing.T) {
	fails := errors.New("the server is silent")
	sec := time.Second
	for name, test := range map[string]struct {
		answers []any
		asked   []time.Duration // the first ones
		events  []string
		run     time.Duration
	}{
		"by its time to live": {
			answers: []any{Answer{addrs("10.6.0.2"), 40 * sec}},
			asked:   []time.Duration{0, 40 * sec, 80 * sec}, run: 100 * sec,
			events: []string{"0s nas.lan [10.6.0.2] <nil>"},
		},
		"never too often": {
			answers: []any{Answer{addrs("10.6.0.2"), 0}},
			asked:   []time.Duration{0, 10 * sec, 20 * sec}, run: 25 * sec,
			events: []string{"0s nas.lan [10.6.0.2] <nil>"},
		},
		"never too seldom": {
			answers: []any{Answer{addrs("10.6.0.2"), 24 * time.Hour}, Answer{addrs("10.6.0.3"), 24 * time.Hour}},
			asked:   []time.Duration{0, 600 * sec, 1200 * sec}, run: 1250 * sec,
			events: []string{"0s nas.lan [10.6.0.2] <nil>", "10m0s nas.lan [10.6.0.3] <nil>"},
		},
		"rotation is no change": {
			answers: []any{Answer{addrs("10.6.0.3", "fd00::1", "10.6.0.2"), 0}, Answer{addrs("10.6.0.2", "10.6.0.3", "10.6.0.2", "fd00::1"), 0}},
			asked:   []time.Duration{0, 10 * sec}, run: 15 * sec,
			events: []string{"0s nas.lan [10.6.0.2 10.6.0.3 fd00::1] <nil>"},
		},
		"the last answer stays, and it is said": {
			answers: []any{Answer{addrs("10.6.0.2"), 30 * sec}, fails, fails, fails, fails, fails, Answer{addrs("10.6.0.2"), 30 * sec}},
			asked:   []time.Duration{0, 30 * sec, 40 * sec, 60 * sec, 100 * sec, 160 * sec, 220 * sec, 250 * sec}, run: 260 * sec,
			events: []string{
				"0s nas.lan [10.6.0.2] <nil>",
				"30s nas.lan [10.6.0.2] nas.lan: the server is silent",
				"3m40s nas.lan [10.6.0.2] <nil>",
			},
		},
		"no answer from the first": {
			answers: []any{fails, Answer{addrs("10.6.0.2"), 30 * sec}},
			asked:   []time.Duration{0, 10 * sec, 40 * sec}, run: 41 * sec,
			events: []string{"0s nas.lan [] nas.lan: the server is silent", "10s nas.lan [10.6.0.2] <nil>"},
		},
		"no such name is an answer": {
			answers: []any{Answer{addrs("10.6.0.2"), 30 * sec}, ErrNoName},
			asked:   []time.Duration{0, 30 * sec, 40 * sec}, run: 41 * sec,
			events: []string{"0s nas.lan [10.6.0.2] <nil>", "30s nas.lan [] nas.lan: no such name"},
		},
		"nor is a name without addresses": {
			answers: []any{Answer{nil, 30 * sec}}, asked: []time.Duration{0, 30 * sec}, run: 31 * sec,
			events: []string{"0s nas.lan [] nas.lan: no such name"},
		},
		"refused at that moment": {
			answers: []any{Answer{addrs("10.6.0.2"), 10 * sec}, Answer{addrs("127.0.0.1"), 10 * sec}, fails, Answer{addrs("10.6.0.2", "::ffff:127.0.0.1"), 10 * sec}, Answer{addrs("10.6.0.2"), 10 * sec}},
			asked:   []time.Duration{0, 10 * sec, 20 * sec, 30 * sec, 40 * sec}, run: 45 * sec,
			events: []string{
				"0s nas.lan [10.6.0.2] <nil>",
				"10s nas.lan [] nas.lan leads to an address that no target has: 127.0.0.1 is this host's loopback: never dialled",
				"20s nas.lan [] nas.lan: the server is silent",
				"30s nas.lan [10.6.0.2] nas.lan leads to an address that no target has: 127.0.0.1 is this host's loopback: never dialled",
				"40s nas.lan [10.6.0.2] <nil>",
			},
		},
	} {
		synctest.Test(t, func(t *testing.T) {
			s := &script{start: time.Now(), answers: test.answers}
			r := New(Options{Lookup: s.lookup, OnChange: s.changed})
			r.Set([]string{"nas.lan"})
			time.Sleep(test.run)
			synctest.Wait()
			state, ok := r.Get("nas.lan")
			if !ok || state.Asked.Sub(s.start) != test.asked[len(test.asked)-1] || !state.Next.After(time.Now()) {
				t.Errorf("%s: %+v", name, state)
			}
			r.Close()
			if !slices.Equal(s.asked, test.asked) {
				t.Errorf("%s: asked at %v, want %v", name, s.asked, test.asked)
			}
			if !slices.Equal(s.events, test.events) {
				t.Errorf("%s:\n%s\nwant\n%s", name, strings.Join(s.events, "\n"), strings.Join(test.events, "\n"))
			}
		})
	}
}

// Everything that means this host, a link or everybody is refused.
func TestRefuses(t *testing.T) {
	for _, a := range addrs("127.0.0.1", "::1", "169.254.169.254", "fe80::1", "224.0.0.1", "ff02::1", "0.0.0.0", "::", "::ffff:127.0.0.1", "64:ff9b::7f00:1") {
		r := New(Options{Lookup: func(context.Context, string) (Answer, error) { return Answer{[]netip.Addr{a}, 0}, nil }})
		if list, _, err := r.ask(t.Context(), "x"); len(list) != 0 || err == nil || errors.As(err, &errNoAnswer{}) {
			t.Errorf("%v: %v, %v", a, list, err)
		}
	}
}

func TestSet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var asked sync.Map
		var running, most atomic.Int32
		r := New(Options{
			Lookup: func(_ context.Context, name string) (Answer, error) {
				n, _ := asked.LoadOrStore(name, new(atomic.Int32))
				n.(*atomic.Int32).Add(1)
				most.Store(max(most.Load(), running.Add(1)))
				defer running.Add(-1)
				time.Sleep(time.Second)
				return Answer{addrs("10.6.0.3", "10.6.0.2"), time.Hour}, nil
			},
			Order: func(_ context.Context, _ string, a []netip.Addr) []netip.Addr { slices.Reverse(a); return a },
		})
		count := func(name string) int32 {
			n, ok := asked.Load(name)
			if !ok {
				return 0
			}
			return n.(*atomic.Int32).Load()
		}
		var many []string
		for i := range 100 {
			many = append(many, fmt.Sprint("host", i))
		}
		r.Set(many)
		time.Sleep(10 * time.Second)
		if most.Load() != atOnce || count("host99") != 1 {
			t.Errorf("%d at once", most.Load())
		}
		r.Set([]string{"host1", "new"})
		time.Sleep(2 * time.Second)
		if s, ok := r.Get("host1"); !ok || count("host1") != 1 || !slices.Equal(s.Addrs, addrs("10.6.0.3", "10.6.0.2")) {
			t.Errorf("%+v, asked %d times", s, count("host1"))
		}
		if _, ok := r.Get("host2"); ok || count("new") != 1 {
			t.Error("host2 is followed, or new is not")
		}
		r.Again()
		time.Sleep(2 * time.Second)
		if count("host1") != 2 || count("new") != 2 || count("host2") != 1 {
			t.Errorf("asked %d, %d, %d times", count("host1"), count("new"), count("host2"))
		}
		r.Close()
		time.Sleep(time.Hour)
		if count("host1") != 2 {
			t.Error("asked after Close")
		}
	})
}

// A question that hangs ends with its follower.
func TestCloseEndsQuestions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := New(Options{Lookup: func(ctx context.Context, _ string) (Answer, error) {
			<-ctx.Done()
			return Answer{}, ctx.Err()
		}, OnChange: func(string, []netip.Addr, error) { t.Error("something changed") }})
		r.Set([]string{"a"})
		synctest.Wait()
		start := time.Now()
		r.Close()
		if time.Since(start) != 0 {
			t.Errorf("Close took %v", time.Since(start))
		}
	})
}
