package filter

import (
	"net/netip"
	"testing"
	"time"

	"vpnd/internal/dataplane"
)

// TestHoursTurnDuringAnUpdate: a change that comes at the instant at which a grant's hours
// begin, before the filter's own clock has struck, opens it all the same. (The reconciler
// wakes at the same instant, so this is no rare meeting.)
func TestHoursTurnDuringAnUpdate(t *testing.T) {
	b := newBed(t, `{"hosts": {"wiki": "192.168.50.2"}, "grants": [
		{"src": ["alice"], "dst": ["wiki"], "ip": ["tcp:80"], "hours": "Mon-Sun 09:00-17:00 UTC"}]}`, nil)
	b.serve("wiki", "wiki", wiki4, 80)
	at := func(hour, minute int) {
		y, m, d := time.Now().UTC().Date()
		now := time.Date(y, m, d, hour, minute, 0, 0, time.UTC)
		b.f.mu.Lock()
		b.f.now = func() time.Time { return now }
		b.f.mu.Unlock()
	}
	signIn := func(addrs []netip.Addr) {
		now := b.f.now()
		b.update(dataplane.Change{PutSessions: []dataplane.Session{{Device: "alice", Addrs: addrs, Until: now.Add(12 * time.Hour),
			Codes: []dataplane.Code{{Serial: 7, At: now}}}}})
	}
	at(8, 59)
	b.set()
	signIn(b.users["alice"].Addrs)
	got, err := b.tcp("alice", wiki4, 80)
	b.refused("before the hours", got, err)
	at(9, 0)
	b.update(dataplane.Change{Rules: b.state.Rules})
	got, err = b.tcp("alice", wiki4, 80)
	b.want("within the hours", "wiki", got, err)
}
