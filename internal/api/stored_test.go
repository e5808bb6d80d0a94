package api

import (
	"strings"
	"testing"

	"vpnd/acl/language"
	"vpnd/acl/rules"
	"vpnd/internal/control/controltest"
	"vpnd/peers"
	vpnv1 "vpnd/proto/vpn/v1"
)

// What an earlier vpnd accepted and this one would not is named by status and by a check
// of that text, and can be gone back to; a new text with it is refused.
func TestPolicyAcceptedBefore(t *testing.T) {
	w := newWorld(t)
	w.enrolled("bob")
	const stored = `{"hosts": {"office": "192.168.7.0/24"}, "grants": [
	{"src": ["bob"], "dst": ["app"], "ip": ["tcp:8080"]},
	{"src": ["office", "autogroup:member"], "dst": ["autogroup:self"], "ip": ["tcp:22"]}],
	"tests": [{"src": "bob", "accept": ["app:8080", "autogroup:self:22"]}]}`
	const named = "this grant gives nothing, because it is refused now"
	ctx, admin := t.Context(), w.admin()
	c := vpnv1.NewPolicyServiceClient(admin)
	if r, err := c.ApplyPolicy(ctx, &vpnv1.ApplyPolicyRequest{Text: stored, Base: 1}); err != nil || r.GetPolicy() != nil {
		t.Fatalf("as a new text it is taken: %v, %v", r, err)
	}
	// The state as an earlier version left it.
	if _, r, err := w.store.Propose(ctx, peers.Command{At: w.now(), Actor: "test", Body: peers.PolicyApplyV1{Text: stored, Base: 1}}); err != nil || r.Err != nil {
		t.Fatal(err, r.Err)
	}
	o := w.View().PolicyOptions()
	o.Stored = true
	ruleset, err := rules.Compile(language.ParseStored([]byte(stored)), o, nil)
	if err != nil {
		t.Fatal(err)
	}
	w.gateway.Set(func(g *controltest.Gateway) { g.RuleSet = ruleset })

	st, err := vpnv1.NewGatewayServiceClient(admin).GetStatus(ctx, &vpnv1.GetStatusRequest{})
	if err != nil || !strings.Contains(strings.Join(st.GetComplaints(), "\n"), "line 3 of the policy: "+named) {
		t.Errorf("status does not name the grant: %v, %v", st.GetComplaints(), err)
	}
	check := func(what string, problems []*vpnv1.Problem) {
		t.Helper()
		found := false
		for _, p := range problems {
			if !p.GetWarning() {
				t.Errorf("%s: refused: %v", what, p)
			}
			found = found || p.GetLine() == 3 && strings.Contains(p.GetMessage(), named)
		}
		if !found {
			t.Errorf("%s does not name the grant: %v", what, problems)
		}
	}
	checked, err := c.CheckPolicy(ctx, &vpnv1.CheckPolicyRequest{Text: stored})
	if err != nil {
		t.Fatal(err)
	}
	check("a check of the policy in force", checked.GetProblems())
	if r, err := c.ApplyPolicy(ctx, &vpnv1.ApplyPolicyRequest{Text: `{}`, Base: 2}); err != nil || r.GetPolicy().GetVersion() != 3 {
		t.Fatal(r, err)
	}
	diff, err := c.DiffPolicy(ctx, &vpnv1.DiffPolicyRequest{Text: stored})
	if err != nil || len(diff.GetDiff().GetChanges()) != 1 {
		t.Errorf("what going back changes: %v, %v", diff, err)
	}
	back, err := c.ApplyPolicy(ctx, &vpnv1.ApplyPolicyRequest{Text: stored, Base: 3})
	if err != nil || back.GetPolicy().GetVersion() != 4 {
		t.Fatalf("it cannot be gone back to: %v, %v", back, err)
	}
	check("going back", back.GetProblems())
	if r, err := c.ApplyPolicy(ctx, &vpnv1.ApplyPolicyRequest{Text: stored + "\n", Base: 4}); err != nil || r.GetPolicy() != nil {
		t.Errorf("another text with that grant is taken: %v, %v", r, err)
	}
}
