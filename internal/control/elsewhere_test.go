package control

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"vpnd/internal/control/controltest"
	"vpnd/internal/dataplane"
	"vpnd/peers"
)

// elsewhere is the edge of a second node, whose requests the first one decides.
func (w *world) elsewhere() (*Service, *controltest.Replica, *controltest.Gateway) {
	w.t.Helper()
	r, g := controltest.NewReplica(w.store), &controltest.Gateway{}
	s := New(Config{Store: r, Gateway: g, Sealer: w.sealer, Decider: wire{w.t, w.leader}, Now: w.clock, Log: w.log.Logger()})
	if err := r.Wait(w.t.Context(), w.View().Index()); err != nil {
		w.t.Fatal(err)
	}
	return s, r, g
}

// The leader is elsewhere: any node takes any request and answers when its own plane has
// what was decided.
func TestLeaderElsewhere(t *testing.T) {
	w := newWorld(t)
	s, r, g := w.elsewhere()
	ctx := Arrived(t.Context(), "uid 7")
	u, inv, err := s.AddUser(ctx, "alice", 0)
	if err != nil || u.Name != "alice" {
		t.Fatal(u, err)
	}
	token := tokenOf(t, inv)
	e, err := s.EnrolBegin(ctx, token, "b")
	if err != nil || e.Secret == "" {
		t.Fatal(e.User, err)
	}
	done, err := s.EnrolFinish(ctx, FinishRequest{Token: token, Browser: "b", Code: w.codeNow(e.Secret), Device: "phone", PublicKey: publicKey(t)})
	if err != nil || done.Device != "alice/phone" || !strings.Contains(done.Config, "PresharedKey") {
		t.Fatal(done.Device, err)
	}
	from := done.Addresses[0]
	if who, err := s.WhoIs(ctx, from); err != nil || who.User != "alice" || !who.Expires.IsZero() {
		t.Errorf("WhoIs: %+v, %v", who, err)
	}
	w.nextPeriod()
	wantCode(t, second(s.SignIn(ctx, from, w.wrongCode(e.Secret))), KindCodeInvalid)
	st, err := s.SignIn(ctx, from, w.codeNow(e.Secret))
	if err != nil || !st.Active {
		t.Fatalf("%+v, %v", st, err)
	}
	if got := g.Applied(); got != w.View().Index() {
		t.Errorf("answered at %d of its plane, the sign-in is at %d", got, w.View().Index())
	}
	if n, closed, err := s.EndSessions(ctx, "", "alice"); err != nil || n != 1 || closed[0].Gateway != r.NodeID() || !closed[0].Done {
		t.Errorf("%d sessions ended, %+v, %v", n, closed, err)
	}
	for _, a := range w.audited("user.add") {
		if a.Actor != "uid 7" {
			t.Errorf("audited as %q", a.Actor)
		}
	}
}

// Nobody leads: what there is goes on, and what would change it is refused at once, in
// words; the housekeeping waits.
func TestNobodyLeads(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		p := w.enrolled("alice")
		w.nextPeriod()
		in, err := w.SignIn(t.Context(), p.addr, w.codeNow(p.secret))
		if err != nil {
			t.Fatal(err)
		}
		w.try("uid 0", time.Minute)
		s, _, _ := w.elsewhere()
		w.store.Follower.Store(true)
		index := w.View().Index()
		ctx := t.Context()
		if now, err := s.Session(ctx, p.addr); err != nil || !now.Active || !now.Expires.Equal(in.Expires) {
			t.Errorf("the session: %+v, %v", now, err)
		}
		if who, err := s.WhoIs(ctx, p.addr); err != nil || !who.Expires.Equal(in.Expires) {
			t.Errorf("WhoIs: %+v, %v", who, err)
		}
		w.nextPeriod()
		_, err = s.SignIn(ctx, p.addr, w.codeNow(p.secret))
		if e := wantCode(t, err, KindNoLeader); e.Code != "no_leader" {
			t.Error(e)
		}
		_, _, err = s.AddUser(ctx, "bob", 0)
		wantCode(t, err, KindNoLeader)
		wantCode(t, second(s.EnrolBegin(ctx, p.token, "b")), KindNoLeader)
		wantCode(t, s.SignOut(ctx, p.addr), KindNoLeader)

		stop := w.running()
		w.ReportDrift(dataplane.Drift{What: "peer", Was: "removed"})
		time.Sleep(13 * time.Hour)
		synctest.Wait()
		stop()
		if now := w.View().Index(); now != index {
			t.Errorf("%d commands without a leader", now-index)
		}
		if now, err := s.Session(ctx, p.addr); err != nil || now.Active {
			t.Errorf("the session does not end: %+v, %v", now, err)
		}
		if n := controltest.Proposed[peers.Expire](w.store); n != 0 {
			t.Errorf("%d times tidied", n)
		}
	})
}
