package api

import (
	"maps"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/durationpb"

	"vpnd/acl/language"
	"vpnd/internal/control"
	"vpnd/peers"
	vpnv1 "vpnd/proto/vpn/v1"
)

func TestPolicy(t *testing.T) {
	w := newWorld(t)
	w.enrolled("bob")
	c := vpnv1.NewPolicyServiceClient(w.admin())
	ctx := t.Context()
	got, err := c.GetPolicy(ctx, &vpnv1.GetPolicyRequest{})
	if err != nil || got.GetPolicy().GetVersion() != 1 || got.GetPolicy().GetText() != language.DefaultPolicy() {
		t.Fatalf("first policy: %v, %v", got.GetPolicy().GetVersion(), err)
	}
	bad := "{\n  \"grants\": [{\"src\": [\"group:nope\"], \"dst\": [\"app\"], \"ip\": [\"tcp:99999\"]}]\n}"
	check, err := c.CheckPolicy(ctx, &vpnv1.CheckPolicyRequest{Text: bad})
	if err != nil || len(check.GetProblems()) < 2 || check.GetProblems()[0].GetLine() != 2 || check.GetProblems()[0].GetColumn() == 0 || check.GetProblems()[0].GetWarning() {
		t.Errorf("check: %v, %v", check, err)
	}
	// Each fault has its code, wherever it is answered.
	faults := map[string]bool{}
	for _, p := range check.GetProblems() {
		faults[p.GetCode()] = true
	}
	if want := map[string]bool{"unknown_group": true, "bad_port": true}; !maps.Equal(faults, want) {
		t.Errorf("the codes are %v, want %v", faults, want)
	}
	apply, err := c.ApplyPolicy(ctx, &vpnv1.ApplyPolicyRequest{Text: bad, Base: 1})
	if err != nil || apply.GetPolicy() != nil || len(apply.GetProblems()) < 2 || w.View().Policy().Version != 1 {
		t.Errorf("a policy in error was applied: %v, %v", apply.GetPolicy(), err)
	}
	// One that fails its own test is refused, too.
	fails := `{"tests": [{"src": "autogroup:member", "accept": ["app:8080"]}]}`
	if apply, err = c.ApplyPolicy(ctx, &vpnv1.ApplyPolicyRequest{Text: fails, Base: 1}); err != nil || apply.GetPolicy() != nil || len(apply.GetProblems()) != 1 || apply.GetProblems()[0].GetCode() != "test_failed" {
		t.Errorf("a policy that fails its test: %v, %v", apply, err)
	}
	apply, err = c.ApplyPolicy(ctx, &vpnv1.ApplyPolicyRequest{Text: otherPolicy, Base: 1, Note: "why not"})
	if err != nil || apply.GetPolicy().GetVersion() != 2 || apply.GetPolicy().GetNote() != "why not" || !apply.GetClosed()[0].GetDone() {
		t.Fatalf("apply: %v, %v", apply, err)
	}
	// Nobody is named alice yet: that is worth a warning, and no more.
	if p := apply.GetProblems(); len(p) != 1 || !p[0].GetWarning() || p[0].GetLine() != 1 {
		t.Errorf("warnings: %v", p)
	}
	wantStatus(t, second(c.ApplyPolicy(ctx, &vpnv1.ApplyPolicyRequest{Text: language.DefaultPolicy(), Base: 1})), codes.Aborted, control.KindConflict)
	list, err := c.ListPolicies(ctx, &vpnv1.ListPoliciesRequest{})
	if err != nil || len(list.GetPolicies()) != 2 || list.GetPolicies()[0].GetVersion() != 2 || list.GetPolicies()[0].GetText() != "" {
		t.Errorf("list: %v, %v", list, err)
	}
	if got, err = c.GetPolicy(ctx, &vpnv1.GetPolicyRequest{Version: 1}); err != nil || got.GetPolicy().GetText() != language.DefaultPolicy() {
		t.Errorf("version 1: %v", err)
	}
	wantStatus(t, second(c.GetPolicy(ctx, &vpnv1.GetPolicyRequest{Version: 9})), codes.NotFound, control.KindNotFound)

	// A session shorter than a grant's freshness would put the policy in error.
	short := time.Hour
	_, _, err = w.SetSettings(ctx, peers.Configure{Session: &short})
	wantCode(t, err, control.KindInvalid)
	if _, err := control.Bootstrap(ctx, w.store, w.sealer, control.BootstrapConfig{Session: short}); err == nil {
		t.Error("the flag sets what the command refuses")
	}
	long := 3 * time.Hour
	if _, _, err = w.SetSettings(ctx, peers.Configure{Session: &long}); err != nil {
		t.Error(err)
	}
}

func TestConfirmByGRPC(t *testing.T) {
	w := newWorld(t)
	cc := w.admin()
	c, ctx := vpnv1.NewPolicyServiceClient(cc), t.Context()
	wantStatus(t, second(c.ConfirmPolicy(ctx, &vpnv1.ConfirmPolicyRequest{})), codes.NotFound, control.KindNotFound)
	wantStatus(t, second(c.RevertPolicy(ctx, &vpnv1.RevertPolicyRequest{})), codes.NotFound, control.KindNotFound)
	try := &vpnv1.ApplyPolicyRequest{Text: otherPolicy, Base: 1, Confirm: durationpb.New(0)}
	wantStatus(t, second(c.ApplyPolicy(ctx, try)), codes.InvalidArgument, control.KindInvalid)
	try.Confirm = durationpb.New(48 * time.Hour)
	wantStatus(t, second(c.ApplyPolicy(ctx, try)), codes.InvalidArgument, control.KindInvalid)
	try.Confirm = durationpb.New(time.Minute)
	r, err := c.ApplyPolicy(ctx, try)
	if err != nil || r.GetPending().GetVersion() != 2 || r.GetPending().GetBack() != 1 || r.GetPending().GetAppliedBy() != r.GetPolicy().GetAppliedBy() {
		t.Fatal(r, err)
	}
	wantStatus(t, second(c.ApplyPolicy(ctx, &vpnv1.ApplyPolicyRequest{Text: otherPolicy, Base: 2})), codes.Aborted, control.KindConflict)
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
	wantStatus(t, second(c.ListGroups(ctx, &vpnv1.ListGroupsRequest{Name: "none"})), codes.NotFound, control.KindNotFound)
}
