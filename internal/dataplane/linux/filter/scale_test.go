package filter

import (
	"context"
	"log/slog"
	"os"
	"testing"
	"time"

	"vpnd/acl/acltest"
	"vpnd/acl/language"
	"vpnd/acl/rules"
	"vpnd/internal/dataplane"
)

// large is a state with many devices, all signed in, and a policy of many grants.
type large struct {
	acltest.Large
	state    dataplane.State
	subjects []rules.Subject
}

func newLarge(tb testing.TB, devices, groups, grants int) *large {
	tb.Helper()
	l := &large{Large: acltest.Large{Devices: devices, Groups: groups, Grants: grants, Target: "192.168.50.2"}}
	l.state.Gateway = dataplane.Gateway{Addrs: acltest.LargeOptions.Gateway, Network: acltest.LargeOptions.Network}
	l.subjects = l.Subjects()
	now := time.Now()
	for i, s := range l.subjects {
		l.state.Devices = append(l.state.Devices, dataplane.Device{ID: s.Device, Name: s.Device, Addrs: s.Addrs})
		l.state.Sessions = append(l.state.Sessions, dataplane.Session{Device: s.Device, Addrs: s.Addrs, Until: now.Add(time.Hour),
			Codes: []dataplane.Code{{Serial: uint32(i + 1), At: now}}})
	}
	l.state.Rules = l.rules(tb, grants)
	return l
}

// rules is the policy with so many grants.
func (l *large) rules(tb testing.TB, grants int) *rules.Ruleset {
	tb.Helper()
	x := l.Large
	x.Grants = grants
	p, err := language.Parse([]byte(x.Text()))
	if err != nil {
		tb.Fatal(err)
	}
	o := acltest.LargeOptions
	o.Stored = true
	r, err := rules.Compile(p, o, l.subjects)
	if err != nil {
		tb.Fatal(err)
	}
	return r
}

func (l *large) open(tb testing.TB) *Filter {
	tb.Helper()
	f, err := Open(context.Background(), Config{Interface: "vt", AppPort: appPort, PortalPort: portalPort, Mark: markBit,
		OnDrift: func(d dataplane.Drift) { tb.Errorf("drift reported: %s %s", d.What, d.Was) }, Log: slog.New(slog.NewTextHandler(tb.Output(), nil))})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := f.Close(); err != nil {
			tb.Error(err)
		}
	})
	return f
}

// TestLarge: everything arrives in the kernel, and small changes stay small.
func TestLarge(t *testing.T) {
	needNamespaces(t)
	l := newLarge(t, 2000, 50, 200)
	f := l.open(t)
	ctx := t.Context()
	timed := func(what string, fn func() error) time.Duration {
		t.Helper()
		begin := time.Now()
		if err := fn(); err != nil {
			t.Fatal(what, err)
		}
		d := time.Since(begin)
		t.Logf("%-50s %v", what, d)
		return d
	}
	timed("Set: 2,000 sessions, 200 grants", func() error { return f.Set(ctx, l.state) })
	verify := func() {
		t.Helper()
		if difference, err := f.verify(); err != nil || difference != "" {
			t.Errorf("the kernel's table differs from the state: %s %v", difference, err)
		}
	}
	verify()
	timed("Set again", func() error { return f.Set(ctx, l.state) })
	s := l.state.Sessions[1321]
	timed("sign-out", func() error { return f.Update(ctx, dataplane.Change{EndSessions: []dataplane.Session{s}}) })
	timed("sign-in", func() error { return f.Update(ctx, dataplane.Change{PutSessions: []dataplane.Session{s}}) })
	timed("sign-in", func() error {
		return f.Update(ctx, dataplane.Change{PutSessions: []dataplane.Session{s}, Rules: f.policy.With(l.subjects[1321:1322], nil)})
	})
	device := l.state.Devices[777]
	timed("device removed", func() error { return f.Update(ctx, dataplane.Change{RemoveDevices: []dataplane.Device{device}}) })
	timed("device added", func() error {
		return f.Update(ctx, dataplane.Change{PutDevices: []dataplane.Device{device}, Rules: f.policy.With(l.subjects[777:778], nil)})
	})
	more := l.Large
	more.More = map[int][]string{7: {more.User(999)}}
	rules, users, ok := f.policy.Regroup(more.Text())
	if !ok || len(users) != 1 {
		t.Fatalf("regrouping: %v %v", users, ok)
	}
	timed("one user more in a group", func() error {
		return f.Update(ctx, dataplane.Change{Rules: rules.With(l.subjects[1998:], nil), PutDevices: l.state.Devices[1998:]})
	})
	if f.garbage != nil {
		t.Error("one user more made the tables anew")
	}
	verify()
	few, many := l.rules(t, 10), l.rules(t, 200)
	timed("policy swap: 10 grants", func() error { return f.Update(ctx, dataplane.Change{Rules: few}) })
	verify()
	timed("policy swap: 200 grants", func() error { return f.Update(ctx, dataplane.Change{Rules: many}) })
	verify()
	time.Sleep(100 * time.Millisecond) // a wrong report of drift would come by now
}

// BenchmarkSwap changes over between two policies of the size that is promised.
func BenchmarkSwap(b *testing.B) {
	if os.Getenv(inside) == "" {
		b.Fatal("network namespaces need root")
	}
	l := newLarge(b, 10_000, 500, 1000)
	f := l.open(b)
	ctx := context.Background()
	if err := f.Set(ctx, l.state); err != nil {
		b.Fatal(err)
	}
	ruleset := []*rules.Ruleset{l.rules(b, 999), l.state.Rules}
	for i := 0; b.Loop(); i++ {
		if err := f.Update(ctx, dataplane.Change{Rules: ruleset[i%2]}); err != nil {
			b.Fatal(err)
		}
		b.StopTimer()
		time.Sleep(2 * grace) // the old tables are swept up
		b.StartTimer()
	}
}
