package filter

import (
	"net/netip"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"vpnd/acl/language"
	"vpnd/acl/rules"
	"vpnd/internal/dataplane"
)

// eleven is when everything in TestEnds ends or begins: a Wednesday.
var eleven = time.Date(2026, 3, 4, 11, 0, 0, 0, time.UTC)

const endings = `{
	"hosts": {"wiki": "192.168.50.2", "wiki6": "fd50::2"},
	"grants": [
		{"src": ["alice"], "dst": ["wiki", "wiki6"], "ip": ["tcp:441", "udp:51"], "hours": "Wed 10:00-11:00 UTC"},
		{"src": ["alice"], "dst": ["wiki", "wiki6"], "ip": ["tcp:442", "udp:52"], "expires": "2026-03-04T11:00:00Z"},
		{"src": ["alice"], "dst": ["wiki", "wiki6"], "ip": ["tcp:443", "udp:53"], "mfa": "15m"},
		{"src": ["alice"], "dst": ["wiki", "wiki6"], "ip": ["tcp:444", "udp:54"], "mfa": "off", "expires": "2026-03-04T11:00:00Z"},
		{"src": ["alice"], "dst": ["wiki", "wiki6"], "ip": ["tcp:445", "udp:55"], "hours": "Wed 11:00-12:00 UTC"},
		{"src": ["alice", "bob"], "dst": ["wiki", "wiki6"], "ip": ["tcp:446", "udp:56"]},
	],
}`

// TestEnds looks at packets around the instant at which hours, a grant, a code and a
// session end. "Alone": nothing of vpnd runs any more, not even the filter's own clock, and
// the kernel ends them in time. "Watched": the filter's clock runs and nobody calls it; then
// hours begin as well.
func TestEnds(t *testing.T) {
	for _, alone := range []bool{true, false} {
		t.Run(map[bool]string{true: "alone", false: "watched"}[alone], func(t *testing.T) {
			x, f, s, _ := newFire(t)
			subjects := []rules.Subject{{Device: "alice/laptop", User: "alice", Addrs: []netip.Addr{alice4, alice6}}, {Device: "bob/phone", User: "bob", Addrs: []netip.Addr{bob4, bob6}}}
			p, err := language.Parse([]byte(endings))
			if err != nil {
				t.Fatal(err)
			}
			if s.Rules, err = rules.Compile(p, rules.Options{Network: s.Gateway.Network, Gateway: s.Gateway.Addrs, Session: 12 * time.Hour}, subjects); err != nil {
				t.Fatal(err)
			}
			begin := time.Now()
			now := func() time.Time { return eleven.Add(-5 * time.Second).Add(time.Since(begin)) }
			f.mu.Lock()
			f.now = now
			f.mu.Unlock()
			// Alice's code was given a quarter of an hour ago; bob's session ends.
			s.Sessions[0].Until, s.Sessions[0].Codes[0].At = eleven.Add(time.Hour), eleven.Add(-15*time.Minute)
			s.Sessions[1].Until, s.Sessions[1].Codes[0].At = eleven, eleven.Add(-time.Hour)
			if err := f.Set(t.Context(), s); err != nil {
				t.Fatal(err)
			}
			if alone {
				f.mu.Lock()
				f.clock.Stop()
				f.mu.Unlock()
			}

			var ending, lasting, coming []*line
			pair := func(what string, device, resource netip.Addr, n uint16) []*line {
				return []*line{x.line(what, unix.IPPROTO_TCP, device, resource, 440+n), x.line(what, unix.IPPROTO_UDP, device, resource, 50+n)}
			}
			for _, a := range [][3]netip.Addr{{alice4, bob4, wiki4}, {alice6, bob6, wiki6}} {
				ending = slices.Concat(ending, pair("hours", a[0], a[2], 1), pair("expires", a[0], a[2], 2), pair("mfa", a[0], a[2], 3),
					pair("off, expires", a[0], a[2], 4), pair("session", a[1], a[2], 6))
				lasting = append(lasting, pair("no end", a[0], a[2], 6)...)
				coming = append(coming, pair("hours that begin", a[0], a[2], 5)...)
			}
			for _, l := range slices.Concat(ending, lasting) {
				l.open()
			}
			check := func(lines []*line, want bool, when string) {
				t.Helper()
				for _, l := range lines {
					if n, sent := l.through(); want && n != sent || !want && n != 0 {
						t.Errorf("%s, protocol %d from %s, %s: %d of %d packets came through", l.what, l.proto, l.near, when, n, sent)
					}
				}
			}
			volleys := 0
			for !t.Failed() && now().Before(eleven.Add(300*time.Millisecond)) {
				before := now()
				for _, l := range slices.Concat(ending, lasting) {
					l.talk()
				}
				x.look(0, func() bool { return true })
				check(lasting, true, "all along")
				switch {
				case now().Before(eleven.Add(-time.Second)): // the kernel's tick and our margin are far less
					check(ending, true, "before the end")
					volleys++
				case !before.Before(eleven):
					check(ending, false, "after the end")
				default:
					for _, l := range ending {
						l.through()
					}
				}
				clear(x.arrived)
				time.Sleep(time.Millisecond)
			}
			if volleys == 0 {
				t.Fatal("this machine takes seconds to send a few packets: nothing was seen before the end")
			}
			var old []*line // connections by a code that is too old now
			for _, l := range ending {
				l.sent = nil
				if l.what == "mfa" && l.proto == unix.IPPROTO_TCP {
					c := *l
					old = append(old, &c)
				}
				x.port++
				l.near = netip.AddrPortFrom(l.near.Addr(), x.port)
				l.open()
			}
			x.look(0, func() bool { return true })
			check(ending, false, "a new flow after the end")

			begun := func() bool {
				for _, l := range coming {
					l.sent = nil
					l.open()
				}
				x.look(0, func() bool { return true })
				return !slices.ContainsFunc(coming, func(l *line) bool { return !x.arrived[l.sent[0]] })
			}
			if alone {
				if begun() {
					t.Error("hours began with nobody there to begin them")
				}
				return
			}
			for end := time.Now().Add(10 * time.Second); !begun(); time.Sleep(10 * time.Millisecond) {
				if time.Now().After(end) {
					t.Fatal("hours do not begin")
				}
			}
			// A new code opens new flows, and revives none.
			mfa := slices.DeleteFunc(ending, func(l *line) bool { return l.what != "mfa" || l.proto != unix.IPPROTO_TCP })
			s.Sessions[0].Codes = append(s.Sessions[0].Codes, dataplane.Code{Serial: 9, At: now()})
			if err := f.Update(t.Context(), dataplane.Change{PutSessions: s.Sessions[:1]}); err != nil {
				t.Fatal(err)
			}
			for _, l := range old {
				l.talk()
			}
			x.look(0, func() bool { return true })
			check(old, false, "an old connection after a new code")
			for _, l := range mfa {
				l.open()
				l.talk()
			}
			x.look(0, func() bool { return true })
			check(mfa, true, "a new connection after a new code")
		})
	}
}
