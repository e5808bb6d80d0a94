package filter

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"
	"time"

	"vpnd/acl/acltest"
	"vpnd/acl/rules"
	"vpnd/internal/dataplane/linux/run"
)

// judged is a packet that the table and the policy judge differently.
type judged struct {
	packet rules.Packet
	at     time.Time
}

// bench holds a filter's table against the policy.
type bench struct {
	f *Filter
	// twist makes what was read back wrong on purpose.
	twist func(run.Reader) run.Reader
	n     int // verdicts
	yes   int // of them, those that allow
}

// openFilter opens a filter on an interface that is not there: no packet ever comes.
func openFilter(t *testing.T) *Filter {
	t.Helper()
	needNamespaces(t)
	f, err := Open(context.Background(), Config{Interface: "vt", AppPort: appPort, PortalPort: portalPort, Mark: markBit, RelayTCP: relayTCP, RelayUDP: relayUDP,
		Local: func(a netip.Addr) bool { return a == localTarget }, Log: slog.New(slog.NewTextHandler(t.Output(), nil))})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := f.Close(); err != nil {
			t.Error(err)
		}
	})
	return f
}

// table reads back the table that holds a scene, and says when that was by the scene's
// clock. A machine so busy that elements may have ended meanwhile tries again.
func (b *bench) table(t *testing.T, s *scene, apply func() error) (*dump, time.Time) {
	t.Helper()
	for range 20 {
		begin := time.Now()
		if err := apply(); err != nil {
			t.Fatal(err)
		}
		read := b.f.now() // before, so that no element seems to last longer than it does
		b.f.mu.Lock()     // nothing is swept up meanwhile
		d, err := readDump(t.Context())
		b.f.mu.Unlock()
		if err != nil {
			t.Fatal(err)
		}
		if time.Since(begin) < coarse/4 {
			return d, read
		}
	}
	t.Fatalf("this machine takes more than %v to change one table", coarse/4)
	return nil, time.Time{}
}

// wrong judges one packet by a table that was read at read; bad means that it and the
// policy disagree.
func (b *bench) wrong(t *testing.T, s *scene, d *dump, read time.Time, x judged) (bad bool) {
	t.Helper()
	want, ours := s.oracle(x.packet, x.at)
	next := s.rules.Next(s.now)
	if ours && want && !next.IsZero() && !x.at.Before(next) {
		return false // what begins now, the filter adds now
	}
	d.at = x.at.Sub(read)
	var from run.Reader = d
	if b.twist != nil {
		from = b.twist(d)
	}
	got, err := s.way().permits(from, flowOf(x.packet))
	if err != nil {
		t.Fatalf("%+v: %v", x.packet, err)
	}
	if ours {
		b.n++
	}
	if got {
		b.yes++
	}
	return got != want
}

// judge judges packets now, and at later moments.
func (b *bench) judge(t *testing.T, s *scene, rng *rand.Rand, packets []rules.Packet, apply func() error) (judged, bool) {
	t.Helper()
	d, read := b.table(t, s, apply)
	moments := []time.Time{read}
	for range 5 {
		if at, ok := s.boundary(rng); ok {
			moments = append(moments, at)
		}
	}
	for _, p := range packets {
		p = s.signed(p)
		for _, at := range moments {
			if x := (judged{p, at}); b.wrong(t, s, d, read, x) {
				return x, true
			}
		}
	}
	return judged{}, false
}

// report shrinks a scene's world as long as x is judged wrongly by a table made for it. A
// fault that needs the changes that came before shows in no such table: then the world
// stays as it was.
func (b *bench) report(t *testing.T, s *scene, seed uint64, x judged) string {
	t.Helper()
	return acltest.Report(s.world, seed, x.packet, x.at, func(w *acltest.World) bool {
		small := *s
		small.world = w
		var err error
		if small.rules, err = w.Compile(); err != nil {
			return false
		}
		y := judged{small.signed(x.packet), x.at}
		d, read := b.table(t, &small, func() error { return small.set(t.Context(), b.f) })
		return b.wrong(t, &small, d, read, y)
	})
}

// asked asks the filter itself about some packets: it looks up each element by itself.
func (b *bench) asked(t *testing.T, s *scene, packets []rules.Packet) {
	t.Helper()
	for _, p := range packets {
		p = s.signed(p)
		got, err := b.f.Permits(t.Context(), flowOf(p))
		if err != nil {
			t.Fatal(err)
		}
		if want, _ := s.oracle(p, b.f.now()); got != want {
			t.Fatalf("Permits says %v of %+v\n%s", got, p, s.world.Text())
		}
		b.n++
	}
}

// TestEquivalence holds the rules and elements that the kernel has against the policy:
// random policies, sessions and packets, now and at each moment at which something ends,
// after a whole state and after small changes.
func TestEquivalence(t *testing.T) {
	b := &bench{f: openFilter(t)}
	const worlds = 42
	begin := time.Now()
	for seed := range uint64(worlds) {
		rng := rand.New(rand.NewPCG(seed, 10))
		s := newScene(t, rng, 1+rng.IntN(12))
		packets := s.packets(rng, 250)
		fail := func(x judged, bad bool) {
			t.Helper()
			if bad {
				want, _ := s.oracle(x.packet, x.at)
				t.Fatalf("the policy says %v, the table does not:\n%s", want, b.report(t, s, seed, x))
			}
		}
		fail(b.judge(t, s, rng, packets, func() error { return s.set(t.Context(), b.f) }))
		b.asked(t, s, packets[:15])
		for range 2 {
			c := s.change(rng)
			fail(b.judge(t, s, rng, packets, func() error { return b.f.Update(t.Context(), c) }))
		}
		b.asked(t, s, packets[15:20])
	}
	t.Logf("%d verdicts in %v, %d of them allow", b.n, time.Since(begin).Round(time.Millisecond), b.yes)
	if b.n < 100_000 || b.yes < b.n/30 {
		t.Errorf("%d verdicts, %d of them allow: too few to show anything", b.n, b.yes)
	}
}

// twisted is a reader that is wrong about one set.
type twisted struct {
	run.Reader
	set   string // the beginning of its name
	found bool
}

func (w twisted) Find(set string, regs []byte) (run.Mapped, bool, error) {
	v, ok, err := w.Reader.Find(set, regs)
	if strings.HasPrefix(set, w.set) {
		ok = w.found
	}
	return v, ok, err
}

// TestEquivalenceFails: a table that is wrong in one way is found out, and what is
// reported is one grant that shows it.
func TestEquivalenceFails(t *testing.T) {
	b := &bench{f: openFilter(t)}
	for name, twist := range map[string]twisted{
		"everything is allowed without a code": {set: "allow_off", found: true},
		"sessions do not end":                  {set: "session", found: true},
		"prefixes are not found":               {set: "zone_net", found: false},
		"resources are never found":            {set: "service", found: false},
		"codes are never fresh":                {set: "start4_15m", found: false},
	} {
		t.Run(name, func(t *testing.T) {
			b.twist = func(r run.Reader) run.Reader { twist.Reader = r; return twist }
			for seed := range uint64(40) {
				rng := rand.New(rand.NewPCG(seed, 11))
				s := newScene(t, rng, 8)
				x, bad := b.judge(t, s, rng, s.packets(rng, 100), func() error { return s.set(t.Context(), b.f) })
				if !bad {
					continue
				}
				report := b.report(t, s, seed, x)
				if n := strings.Count(report, `"src"`); n > 1 {
					t.Errorf("%d grants are left:\n%s", n, report)
				}
				t.Log(report)
				return
			}
			t.Error("the fault is not found")
		})
	}
}
