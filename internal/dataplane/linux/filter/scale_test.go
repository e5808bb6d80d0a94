package filter

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"vpnd/acl"
	"vpnd/internal/dataplane"
)

// large is a state with many devices, all signed in, and a policy of many grants.
type large struct {
	state    dataplane.State
	subjects []acl.Subject
	users    int
}

func newLarge(tb testing.TB, users, grants int) *large {
	tb.Helper()
	l := &large{users: users}
	l.state.Gateway = dataplane.Gateway{
		Addrs:   []netip.Addr{gw4, gw6},
		Network: []netip.Prefix{netip.MustParsePrefix("10.77.0.0/16"), netip.MustParsePrefix("fd77::/64")},
	}
	a4, a6 := netip.MustParseAddr("10.77.0.2"), netip.MustParseAddr("fd77::2")
	now := time.Now()
	for i := range 2 * users { // two devices each
		s := acl.Subject{Device: fmt.Sprintf("u%d/d%d", i/2, i%2), User: fmt.Sprintf("u%d", i/2), Addrs: []netip.Addr{a4, a6}}
		l.subjects = append(l.subjects, s)
		l.state.Devices = append(l.state.Devices, dataplane.Device{ID: s.Device, Name: s.Device, Addrs: s.Addrs})
		l.state.Sessions = append(l.state.Sessions, dataplane.Session{Device: s.Device, Addrs: s.Addrs, Until: now.Add(time.Hour),
			Codes: []dataplane.Code{{Serial: uint32(i + 1), At: now}}})
		a4, a6 = a4.Next(), a6.Next()
	}
	l.state.Rules = l.rules(tb, grants, "")
	return l
}

// rules: groups of 100 users each, nested lists; each grant is one group to one host and
// port. member is one user more in the first group.
func (l *large) rules(tb testing.TB, grants int, member string) *acl.Ruleset {
	tb.Helper()
	groups := min(500, grants)
	var b strings.Builder
	b.WriteString("{\"groups\": {\n")
	for g := range groups {
		fmt.Fprintf(&b, "\"group:g%d\": [", g)
		for k := range min(100, l.users) {
			fmt.Fprintf(&b, "\"u%d\",", (g*37+k*53)%l.users)
		}
		if g == 0 && member != "" {
			fmt.Fprintf(&b, "%q", member)
		}
		b.WriteString("],\n")
	}
	b.WriteString("}, \"grants\": [\n")
	for g := range grants {
		fmt.Fprintf(&b, "{\"src\": [\"group:g%d\"], \"dst\": [\"192.168.%d.%d\"], \"ip\": [\"tcp:%d\", \"udp:1000-%d\"]},\n",
			g%groups, 50+g/200, 2+g%200, 1000+g, 2000+g)
	}
	b.WriteString("]}")
	p, err := acl.Parse([]byte(b.String()))
	if err != nil {
		tb.Fatal(err)
	}
	r, err := acl.Compile(p, acl.Options{Network: l.state.Gateway.Network, Gateway: l.state.Gateway.Addrs, Session: 12 * time.Hour}, l.subjects)
	if err != nil {
		tb.Fatal(err)
	}
	return r
}

func (l *large) open(tb testing.TB) *Filter {
	tb.Helper()
	f, err := Open(context.Background(), Config{Interface: "vt", AppPort: appPort, PortalPort: portalPort, Mark: markBit,
		OnDrift: func(d dataplane.Drift) { tb.Errorf("drift reported: %s %s", d.What, d.Was) }, Logf: tb.Logf})
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
	l := newLarge(t, 1000, 200)
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
	more := l.rules(t, 200, "u999")
	timed("one user more in a group", func() error { return f.Update(ctx, dataplane.Change{Rules: more}) })
	verify()
	few := l.rules(t, 10, "")
	timed("policy swap: 10 grants", func() error { return f.Update(ctx, dataplane.Change{Rules: few}) })
	verify()
	timed("policy swap: 200 grants", func() error { return f.Update(ctx, dataplane.Change{Rules: more}) })
	verify()
	time.Sleep(100 * time.Millisecond) // a wrong report of drift would come by now
}
