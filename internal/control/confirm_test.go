package control

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"vpnd/internal/control/controltest"
	"vpnd/peers"
)

const otherPolicy = `{"grants": [{"src": ["alice"], "dst": ["app"], "ip": ["tcp:80"], "mfa": "2h"}]}`

// try applies a policy that must be confirmed.
func (w *world) try(actor string, confirm time.Duration) {
	w.t.Helper()
	now := w.View().Policy()
	ctx := Arrived(w.t.Context(), actor)
	if p, problems, _, err := w.ApplyPolicy(ctx, otherPolicy, now.Version, "", confirm); err != nil || p == nil {
		w.t.Fatal(problems, err)
	}
}

func (w *world) audited(action string) (list []peers.Entry) {
	return slices.DeleteFunc(w.View().Audit(0, 1000), func(e peers.Entry) bool { return e.Action != action })
}

func TestNotConfirmedInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		stop := w.running()
		defer stop()
		w.try("uid 0", time.Minute)
		time.Sleep(time.Minute - time.Millisecond)
		if p := w.View().Policy(); p.Version != 2 {
			t.Fatalf("version %d is in force before the deadline", p.Version)
		}
		time.Sleep(2 * time.Millisecond)
		synctest.Wait()
		p := w.View().Policy()
		if p.Version != 3 || p.By != "gateway" || p.Text != w.View().PolicyVersion(1).Text || w.View().Pending() != nil {
			t.Errorf("after the deadline: version %d by %s", p.Version, p.By)
		}
		if e := w.audited("policy.revert"); len(e) != 1 || e[0].Actor != "gateway" || !strings.Contains(e[0].Detail, "uid 0") {
			t.Errorf("audited: %+v", e)
		}
		if !strings.Contains(w.log.String(), "version 1 is in force again") {
			t.Errorf("logged: %s", w.log.String())
		}
		time.Sleep(time.Hour)
		if n := controltest.Proposed[peers.PolicyRevert](w.store); n != 1 {
			t.Errorf("proposed %d times", n)
		}
	})
}

func TestConfirmed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		stop := w.running()
		defer stop()
		w.try("uid 0", time.Minute)
		_, err := w.ConfirmPolicy(Arrived(t.Context(), "uid 1000"))
		if e := wantCode(t, err, KindConflict); e.Values()["by"] != "uid 0" {
			t.Error(e)
		}
		if p, err := w.ConfirmPolicy(Arrived(t.Context(), "uid 0")); err != nil || p.Version != 2 {
			t.Fatal(p, err)
		}
		_, err = w.ConfirmPolicy(Arrived(t.Context(), "uid 0"))
		wantCode(t, err, KindNotFound)
		time.Sleep(time.Hour)
		if p := w.View().Policy(); p.Version != 2 || len(w.audited("policy.confirm")) != 1 {
			t.Errorf("version %d is in force", p.Version)
		}
	})
}

// The deadline passes while the daemon is down, or while another node leads: who leads
// next sees to it.
func TestDeadlineSurvivesRestartAndFailover(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.try("uid 0", time.Minute)
		time.Sleep(time.Hour)
		w.store.Follower.Store(true)
		stop := w.running()
		time.Sleep(time.Minute)
		if n := controltest.Proposed[peers.PolicyRevert](w.store); n != 0 {
			t.Errorf("a follower proposed %d times", n)
		}
		w.store.Follower.Store(false)
		time.Sleep(2 * time.Second)
		stop()
		if p := w.View().Policy(); p.Version != 3 {
			t.Errorf("version %d is in force", p.Version)
		}
	})
}

// Without a leader the try is repeated, not in a hurry.
func TestRevertIsRepeated(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		stop := w.running()
		defer stop()
		w.try("uid 0", time.Minute)
		w.store.SetFail(errors.New("the disk is full"))
		time.Sleep(2 * time.Minute)
		if n := strings.Count(w.log.String(), "could not be taken back"); n < 10 || n > 61 {
			t.Errorf("%d tries in a minute", n)
		}
		w.store.SetFail(nil)
		time.Sleep(2 * time.Second)
		if p := w.View().Policy(); p.Version != 3 {
			t.Errorf("version %d is in force", p.Version)
		}
	})
}
