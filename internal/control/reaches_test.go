package control

import (
	"testing"

	"vpnd/acl/language"
	"vpnd/acl/rules"
	"vpnd/internal/control/controltest"
)

// The tunnel's page shows what the rules in force say about this device.
func TestReaches(t *testing.T) {
	w := newWorld(t)
	p := w.enrolled("alice")
	v := w.View()
	policy, err := language.Parse([]byte(language.DefaultPolicy()))
	if err != nil {
		t.Fatal(err)
	}
	ruleset, err := rules.Compile(policy, v.PolicyOptions(), subjects(v))
	if err != nil {
		t.Fatal(err)
	}
	w.gateway.Set(func(g *controltest.Gateway) { g.RuleSet = ruleset })
	st, err := w.Session(t.Context(), p.addr)
	if err != nil || len(st.Reaches) == 0 || st.Reaches[0].Allow || st.Reaches[0].Reason != rules.NoSession {
		t.Errorf("before sign-in: %+v, %v", st.Reaches, err)
	}
	w.nextPeriod()
	if st, err = w.SignIn(t.Context(), p.addr, w.codeNow(p.secret)); err != nil || len(st.Reaches) == 0 || !st.Reaches[0].Allow {
		t.Errorf("after sign-in: %+v, %v", st.Reaches, err)
	}
}
