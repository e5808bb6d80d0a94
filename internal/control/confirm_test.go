package control

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/durationpb"

	"vpnd/peers"
	vpnv1 "vpnd/proto/vpn/v1"
)

// try applies a policy that must be confirmed.
func (w *world) try(actor string, confirm time.Duration) {
	w.t.Helper()
	now := w.view().Policy()
	ctx := WithActor(w.t.Context(), actor)
	if p, problems, _, err := w.ApplyPolicy(ctx, otherPolicy, now.Version, "", confirm); err != nil || p == nil {
		w.t.Fatal(problems, err)
	}
}

func (w *world) audited(action string) (list []peers.Entry) {
	return slices.DeleteFunc(w.view().Audit(0, 1000), func(e peers.Entry) bool { return e.Action != action })
}

func TestNotConfirmedInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		stop := w.running()
		defer stop()
		w.try("uid 0", time.Minute)
		time.Sleep(time.Minute - time.Millisecond)
		if p := w.view().Policy(); p.Version != 2 {
			t.Fatalf("version %d is in force before the deadline", p.Version)
		}
		time.Sleep(2 * time.Millisecond)
		synctest.Wait()
		p := w.view().Policy()
		if p.Version != 3 || p.By != "gateway" || p.Text != w.view().PolicyVersion(1).Text || w.view().Pending() != nil {
			t.Errorf("after the deadline: version %d by %s", p.Version, p.By)
		}
		if e := w.audited("policy.revert"); len(e) != 1 || e[0].Actor != "gateway" || !strings.Contains(e[0].Detail, "uid 0") {
			t.Errorf("audited: %+v", e)
		}
		if !strings.Contains(w.log.String(), "version 1 is in force again") {
			t.Errorf("logged: %s", w.log.String())
		}
		time.Sleep(time.Hour)
		if n := proposed[peers.PolicyRevert](w.store); n != 1 {
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
		_, err := w.ConfirmPolicy(WithActor(t.Context(), "uid 1000"))
		if e := wantCode(t, err, CodeConflict); !strings.Contains(e.Message, `"uid 0"`) {
			t.Error(e.Message)
		}
		if p, err := w.ConfirmPolicy(WithActor(t.Context(), "uid 0")); err != nil || p.Version != 2 {
			t.Fatal(p, err)
		}
		_, err = w.ConfirmPolicy(WithActor(t.Context(), "uid 0"))
		wantCode(t, err, CodeNotFound)
		time.Sleep(time.Hour)
		if p := w.view().Policy(); p.Version != 2 || len(w.audited("policy.confirm")) != 1 {
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
		w.store.follower.Store(true)
		stop := w.running()
		time.Sleep(time.Minute)
		if n := proposed[peers.PolicyRevert](w.store); n != 0 {
			t.Errorf("a follower proposed %d times", n)
		}
		w.store.follower.Store(false)
		time.Sleep(2 * time.Second)
		stop()
		if p := w.view().Policy(); p.Version != 3 {
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
		w.store.setFail(errors.New("the disk is full"))
		time.Sleep(2 * time.Minute)
		if n := strings.Count(w.log.String(), "take version 2"); n < 10 || n > 61 {
			t.Errorf("%d tries in a minute", n)
		}
		w.store.setFail(nil)
		time.Sleep(2 * time.Second)
		if p := w.view().Policy(); p.Version != 3 {
			t.Errorf("version %d is in force", p.Version)
		}
	})
}

func TestConfirmByGRPC(t *testing.T) {
	w := newWorld(t)
	cc := w.admin()
	c, ctx := vpnv1.NewPolicyServiceClient(cc), t.Context()
	wantStatus(t, second(c.ConfirmPolicy(ctx, &vpnv1.ConfirmPolicyRequest{})), codes.NotFound, CodeNotFound)
	wantStatus(t, second(c.RevertPolicy(ctx, &vpnv1.RevertPolicyRequest{})), codes.NotFound, CodeNotFound)
	try := &vpnv1.ApplyPolicyRequest{Text: otherPolicy, Base: 1, Confirm: durationpb.New(0)}
	wantStatus(t, second(c.ApplyPolicy(ctx, try)), codes.InvalidArgument, CodeInvalid)
	try.Confirm = durationpb.New(48 * time.Hour)
	wantStatus(t, second(c.ApplyPolicy(ctx, try)), codes.InvalidArgument, CodeInvalid)
	try.Confirm = durationpb.New(time.Minute)
	r, err := c.ApplyPolicy(ctx, try)
	if err != nil || r.GetPending().GetVersion() != 2 || r.GetPending().GetBack() != 1 || r.GetPending().GetAppliedBy() != r.GetPolicy().GetAppliedBy() {
		t.Fatal(r, err)
	}
	wantStatus(t, second(c.ApplyPolicy(ctx, &vpnv1.ApplyPolicyRequest{Text: otherPolicy, Base: 2})), codes.Aborted, CodeConflict)
	if l, err := c.ListPolicies(ctx, &vpnv1.ListPoliciesRequest{}); err != nil || l.GetPending().GetVersion() != 2 {
		t.Error(l, err)
	}
	if st, err := vpnv1.NewGatewayServiceClient(cc).GetStatus(ctx, &vpnv1.GetStatusRequest{}); err != nil || st.GetPendingPolicy().GetVersion() != 2 {
		t.Error(st, err)
	}
	if r, err := c.RevertPolicy(ctx, &vpnv1.RevertPolicyRequest{}); err != nil || r.GetPolicy().GetVersion() != 3 || !r.GetClosed()[0].GetDone() {
		t.Error(r, err)
	}
	// Without a confirmation, nothing waits.
	if r, err := c.ApplyPolicy(ctx, &vpnv1.ApplyPolicyRequest{Text: otherPolicy, Base: 3}); err != nil || r.GetPending() != nil {
		t.Error(r, err)
	}
}

func TestGroups(t *testing.T) {
	w := newWorld(t)
	c, ctx := vpnv1.NewPolicyServiceClient(w.admin()), t.Context()
	text := `{"groups": {"group:ops": ["Bob", "group:dba", "alice@"], "group:dba": ["carol"]}}`
	if _, problems, _, err := w.ApplyPolicy(ctx, text, 1, "", 0); err != nil || problems.Fatal() {
		t.Fatal(problems, err)
	}
	r, err := c.ListGroups(ctx, &vpnv1.ListGroupsRequest{})
	if err != nil || len(r.GetGroups()) != 2 || r.GetGroups()[0].GetName() != "group:dba" {
		t.Fatal(r, err)
	}
	for _, name := range []string{"ops", "group:ops"} {
		r, err = c.ListGroups(ctx, &vpnv1.ListGroupsRequest{Name: name})
		if err != nil || len(r.GetGroups()) != 1 || strings.Join(r.GetGroups()[0].GetMembers(), " ") != "bob group:dba alice" || strings.Join(r.GetGroups()[0].GetUsers(), " ") != "alice bob carol" {
			t.Error(r, err)
		}
	}
	wantStatus(t, second(c.ListGroups(ctx, &vpnv1.ListGroupsRequest{Name: "none"})), codes.NotFound, CodeNotFound)
}
