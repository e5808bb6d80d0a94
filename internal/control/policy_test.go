package control

import (
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	"vpnd/acl"
	"vpnd/peers"
	vpnv1 "vpnd/proto/vpn/v1"
)

const otherPolicy = `{"grants": [{"src": ["alice"], "dst": ["app"], "ip": ["tcp:80"], "mfa": "2h"}]}`

func TestPolicy(t *testing.T) {
	w := newWorld(t)
	w.enrolled("bob")
	c := vpnv1.NewPolicyServiceClient(w.admin())
	ctx := t.Context()
	got, err := c.GetPolicy(ctx, &vpnv1.GetPolicyRequest{})
	if err != nil || got.GetPolicy().GetVersion() != 1 || got.GetPolicy().GetText() != acl.DefaultPolicy() {
		t.Fatalf("first policy: %v, %v", got.GetPolicy().GetVersion(), err)
	}
	bad := "{\n  \"grants\": [{\"src\": [\"group:nope\"], \"dst\": [\"app\"], \"ip\": [\"tcp:99999\"]}]\n}"
	check, err := c.CheckPolicy(ctx, &vpnv1.CheckPolicyRequest{Text: bad})
	if err != nil || len(check.GetProblems()) < 2 || check.GetProblems()[0].GetLine() != 2 || check.GetProblems()[0].GetColumn() == 0 || check.GetProblems()[0].GetWarning() {
		t.Errorf("check: %v, %v", check, err)
	}
	apply, err := c.ApplyPolicy(ctx, &vpnv1.ApplyPolicyRequest{Text: bad, Base: 1})
	if err != nil || apply.GetPolicy() != nil || len(apply.GetProblems()) < 2 || w.view().Policy().Version != 1 {
		t.Errorf("a policy in error was applied: %v, %v", apply.GetPolicy(), err)
	}
	// One that fails its own test is refused, too.
	fails := `{"tests": [{"src": "autogroup:member", "accept": ["app:8080"]}]}`
	if apply, err = c.ApplyPolicy(ctx, &vpnv1.ApplyPolicyRequest{Text: fails, Base: 1}); err != nil || apply.GetPolicy() != nil || len(apply.GetProblems()) == 0 {
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
	wantStatus(t, second(c.ApplyPolicy(ctx, &vpnv1.ApplyPolicyRequest{Text: acl.DefaultPolicy(), Base: 1})), codes.Aborted, CodeConflict)
	list, err := c.ListPolicies(ctx, &vpnv1.ListPoliciesRequest{})
	if err != nil || len(list.GetPolicies()) != 2 || list.GetPolicies()[0].GetVersion() != 2 || list.GetPolicies()[0].GetText() != "" {
		t.Errorf("list: %v, %v", list, err)
	}
	if got, err = c.GetPolicy(ctx, &vpnv1.GetPolicyRequest{Version: 1}); err != nil || got.GetPolicy().GetText() != acl.DefaultPolicy() {
		t.Errorf("version 1: %v", err)
	}
	wantStatus(t, second(c.GetPolicy(ctx, &vpnv1.GetPolicyRequest{Version: 9})), codes.NotFound, CodeNotFound)

	// A session shorter than a grant's freshness would put the policy in error.
	short := time.Hour
	_, _, err = w.SetSettings(ctx, peers.Configure{Session: &short})
	wantCode(t, err, CodeInvalid)
	if _, err := Bootstrap(ctx, w.store, w.sealer, BootstrapConfig{Session: short}); err == nil {
		t.Error("the flag sets what the command refuses")
	}
	long := 3 * time.Hour
	if _, _, err = w.SetSettings(ctx, peers.Configure{Session: &long}); err != nil {
		t.Error(err)
	}
}

// The tunnel's page shows what the rules in force say about this device.
func TestReaches(t *testing.T) {
	w := newWorld(t)
	p := w.enrolled("alice")
	v := w.view()
	set, _ := v.Settings()
	policy, err := acl.Parse([]byte(acl.DefaultPolicy()))
	if err != nil {
		t.Fatal(err)
	}
	rules, err := acl.Compile(policy, set.PolicyOptions(), subjects(v))
	if err != nil {
		t.Fatal(err)
	}
	w.gateway.set(func(g *fakeGateway) { g.rules = rules })
	st, err := w.Session(t.Context(), p.addr)
	if err != nil || len(st.Reaches) == 0 || st.Reaches[0].Allow || st.Reaches[0].Reason != acl.NoSession {
		t.Errorf("before sign-in: %+v, %v", st.Reaches, err)
	}
	w.nextPeriod()
	if st, err = w.SignIn(t.Context(), p.addr, w.codeNow(p.secret)); err != nil || len(st.Reaches) == 0 || !st.Reaches[0].Allow {
		t.Errorf("after sign-in: %+v, %v", st.Reaches, err)
	}
}
