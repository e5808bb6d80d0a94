package e2e

import (
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"
)

// both runs a test on each plane.
func both(t *testing.T, f func(t *testing.T, w *world)) {
	for _, plane := range []string{"linux", "netstack"} {
		t.Run(plane, func(t *testing.T) {
			t.Parallel()
			f(t, newWorld(t, plane))
		})
	}
}

const openPolicy = `{
  // Members reach the app and the private network's web servers.
  "hosts": {"web": "198.51.100.10", "web6": "2001:db8:2::10"},
  "grants": [
    {"src": ["autogroup:member"], "dst": ["app"], "ip": ["tcp:8080", "icmp"]},
    {"src": ["autogroup:member"], "dst": ["web", "web6"], "ip": ["tcp:80", "tcp:5201", "udp:7000", "icmp"]},
  ],
}`

const app = "http://" + tunnel4 + ":8080"

// The whole path, as a person takes it: invitation, authenticator, config, sign-in page,
// code, app, sign-out; and what stays closed at each step.
func TestPath(t *testing.T) {
	both(t, func(t *testing.T, w *world) {
		w.web("80", "9090")
		w.startVpnd()
		w.startApp()
		w.policy(openPolicy)
		alice := w.person("alice", "phone")

		// Before signing in: the sign-in page, and nothing else.
		status, _, where, err := alice.get(app + "/")
		if err != nil || status != 303 || !strings.HasPrefix(where, "http://"+tunnel4+"/") {
			t.Fatalf("the app without a session: %d %q %v", status, where, err)
		}
		if status, _, where, err := alice.get("http://" + lan4 + "/secret"); err != nil || status != 303 || !strings.HasPrefix(where, "http://"+tunnel4+"/") {
			t.Errorf("a resource without a session: %d %q %v", status, where, err)
		}
		if _, body, _, err := alice.get("http://" + lan4 + ":9090/"); err == nil {
			t.Errorf("another port without a session answered %q", body)
		}
		if strings.Contains(w.app.log.String(), "GET") {
			t.Errorf("the app saw a device without a session:\n%s", w.app.log)
		}
		var s session
		if status := alice.tunnel("GET", "/api/v1/session", nil, &s); status != 200 || s.State != "required" || s.User != "alice" {
			t.Errorf("GET session before: %d %+v", status, s)
		}

		s = alice.signIn()
		if left := time.Until(s.Expires); left < 11*time.Hour || left > 12*time.Hour+time.Minute {
			t.Errorf("the session lasts %v, want 12 h", left)
		}
		// Open when the answer says so: no waiting here.
		if _, body, _, err := alice.get(app + "/api/whoami"); err != nil || !strings.Contains(body, `"user":"alice"`) || !strings.Contains(body, alice.addr4) {
			t.Errorf("whoami: %q %v", body, err)
		}
		if status, body, _, err := alice.get("http://" + lan4 + "/"); err != nil || status != 200 || !strings.HasPrefix(body, "resource to ") {
			t.Errorf("the resource: %d %q %v", status, body, err)
		} else if strings.Contains(body, alice.addr4) {
			t.Errorf("the resource sees the tunnel address: %q; it should be masqueraded", body)
		}
		if status, body, _, err := alice.get("http://[" + lan6 + "]/"); err != nil || status != 200 || !strings.HasPrefix(body, "resource to ") {
			t.Errorf("the resource by IPv6: %d %q %v", status, body, err)
		}
		if status, body, _, err := alice.get(app+"/api/files?name=a.txt", "--data-binary", "hello", "-H", "Origin: "+app); err != nil || status != 201 {
			t.Errorf("upload: %d %q %v", status, body, err)
		}
		if _, body, _, err := alice.get("http://" + lan4 + ":9090/"); err == nil {
			t.Errorf("a port that no grant names answered %q", body)
		}

		// A code works once.
		if status := alice.tunnel("POST", "/api/v1/session", map[string]string{"code": alice.codeAt(alice.step)}, &s); status != 401 || s.Error.Code != "code_used" {
			t.Errorf("the code again: %d %+v", status, s.Error)
		}

		// The session outlives the daemon.
		w.vpnd.stop(t, syscall.SIGTERM)
		w.startVpnd()
		eventually(t, 20*time.Second, "the app is open after a restart of vpnd", func() error {
			if status, body, _, err := alice.get(app + "/api/whoami"); err != nil || status != 200 {
				return fmt.Errorf("%d %q %v", status, body, err)
			}
			return nil
		})

		alice.signOut()
		if status, body, _, err := alice.get(app + "/api/whoami"); err == nil && status == 200 {
			t.Errorf("the app after signing out: %q", body)
		}
		if status, body, _, err := alice.get("http://[" + lan6 + "]/"); err == nil && status == 200 {
			t.Errorf("the resource after signing out: %q", body)
		}
	})
}
