package e2e

import (
	"fmt"
	"testing"
)

// What "policy explain" says of a flow is what policy and data plane both say, before and
// after signing in, in both families: a disagreement is an exit code that fails here.
func TestExplain(t *testing.T) {
	both(t, func(t *testing.T, w *world) {
		w.startVpnd()
		w.policy(openPolicy)
		alice := w.person("alice", "phone")
		explain := func(destination, reason string) {
			t.Helper()
			var r struct {
				Flows []struct {
					Reason       string `json:"reason"`
					Allowed      bool   `json:"allowed"`
					PlanePermits *bool  `json:"plane_permits"`
					PlaneError   string `json:"plane_error"`
				} `json:"flows"`
			}
			w.vpnctlJSON(&r, "policy", "explain", "alice/phone", destination)
			if len(r.Flows) != 1 || r.Flows[0].Reason != reason || r.Flows[0].PlanePermits == nil || *r.Flows[0].PlanePermits != r.Flows[0].Allowed {
				t.Errorf("%s: %s, want %s", destination, fmt.Sprintf("%+v", r.Flows), reason)
			}
		}
		explain("app:8080", "no_session")
		explain("app:80", "allowed") // the sign-in page
		explain("web:80", "no_session")
		explain("web:22", "no_grant")
		alice.signIn()
		for _, open := range []string{"app:8080", "icmp:app", "app:80", "web:80", "web6:80", "udp:web:7000", "udp:web6:7000"} {
			explain(open, "allowed")
		}
		for _, shut := range []string{"app:22", "web:22", "web6:22", "udp:web:53", "198.51.100.11:80"} {
			explain(shut, "no_grant")
		}
		w.vpnctl("device", "disable", "alice/phone")
		explain("web:80", "disabled")
	})
}
