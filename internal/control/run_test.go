package control

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"vpnd/internal/control/controltest"
	"vpnd/internal/dataplane"
	"vpnd/peers"
)

// running starts Run and returns what stops it and waits for its end.
func (w *world) running() (stop func()) {
	ctx, cancel := context.WithCancel(w.t.Context())
	done := make(chan struct{})
	go func() { defer close(done); w.Run(ctx) }()
	return func() { cancel(); <-done }
}

func TestExpire(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		alice, bob := w.enrolled("alice"), w.enrolled("bob")
		w.invited("carol")
		stop := w.running()
		defer stop()
		w.nextPeriod()
		for _, p := range []person{alice, bob} {
			if _, err := w.SignIn(t.Context(), p.addr, w.codeNow(p.secret)); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(11 * time.Hour)
		before := controltest.Proposed[peers.Expire](w.store)
		if before > 1 { // the used invitations, which are kept for an hour
			t.Errorf("%d commands to remove what had not ended", before)
		}
		if _, _, sessions := w.View().Counts(); sessions != 2 {
			t.Fatalf("%d sessions", sessions)
		}
		time.Sleep(time.Hour + 2*time.Second)
		if _, _, sessions := w.View().Counts(); sessions != 0 {
			t.Errorf("%d sessions are left", sessions)
		}
		if n := controltest.Proposed[peers.Expire](w.store) - before; n < 1 || n > 2 {
			t.Errorf("%d commands to remove two sessions", n)
		}
		// Invitations are looked at every hour, and after that there is nothing to do.
		time.Sleep(38 * time.Hour)
		for _, name := range []string{"alice", "carol"} {
			for inv := range w.View().InvitationsOf(w.View().UserByName(name).ID) {
				t.Errorf("an invitation of %s until %v is left", name, inv.Expires)
			}
		}
		n := controltest.Proposed[peers.Expire](w.store)
		time.Sleep(100 * time.Hour)
		if m := controltest.Proposed[peers.Expire](w.store); m != n {
			t.Errorf("%d commands to remove nothing", m-n)
		}
	})
}

func TestExpireOnlyByTheLeader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		p := w.enrolled("alice")
		w.nextPeriod()
		if _, err := w.SignIn(t.Context(), p.addr, w.codeNow(p.secret)); err != nil {
			t.Fatal(err)
		}
		w.store.Follower.Store(true)
		stop := w.running()
		time.Sleep(13 * time.Hour)
		if n := controltest.Proposed[peers.Expire](w.store); n != 0 {
			t.Errorf("a follower proposed %d times", n)
		}
		w.store.Follower.Store(false)
		time.Sleep(2 * expireIdle)
		stop()
		if n := controltest.Proposed[peers.Expire](w.store); n != 1 {
			t.Errorf("the leader proposed %d times", n)
		}
	})
}

func TestReportDrift(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		stop := w.running()
		w.ReportDrift(dataplane.Drift{What: "table vpnd", Was: "removed"})
		time.Sleep(2 * time.Second)
		notes := func() (list []peers.Entry) {
			for _, e := range w.View().Audit(0, 1000) {
				if e.Action == "gateway.drift" {
					list = append(list, e)
				}
			}
			return list
		}
		if n := notes(); len(n) != 1 || n[0].Target != "table vpnd" || !strings.HasPrefix(n[0].Detail, "removed") || n[0].Actor != "gateway" {
			t.Fatalf("audited: %+v", n)
		}
		start := time.Now()
		for i := range 10_000 {
			w.ReportDrift(dataplane.Drift{What: fmt.Sprintf("peer %d", i), Was: "added"})
		}
		if time.Since(start) != 0 {
			t.Error("the data plane was kept waiting")
		}
		time.Sleep(10 * time.Minute)
		n := notes()
		if len(n) > driftQueue+3 || len(n) < driftQueue {
			t.Errorf("%d entries for 10,000 reports", len(n)-1)
		}
		lost := false
		for _, e := range n {
			lost = lost || strings.Contains(e.Detail, "more like it")
		}
		if !lost {
			t.Error("nothing says how many were left out")
		}
		stop()
		w.ReportDrift(dataplane.Drift{What: strings.Repeat("x", 5000), Was: "added"})
	})
}
