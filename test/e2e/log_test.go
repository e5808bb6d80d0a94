package e2e

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"
)

// event is a line of a log in JSON.
type event map[string]any

// has says whether e has the fields, as "key=value"; "key=" wants any value.
func (e event) has(fields ...string) bool {
	for _, f := range fields {
		key, want, _ := strings.Cut(f, "=")
		got, ok := e[key]
		if !ok || want != "" && fmt.Sprint(got) != want {
			return false
		}
	}
	return true
}

// events reads a log of which each line is to be an event.
func events(t *testing.T, name, text string) (list []event) {
	t.Helper()
	for line := range strings.Lines(text) {
		var e event
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			t.Errorf("%s has a line that is no event: %q", name, line)
			continue
		}
		if !e.has("time=", "level=", "msg=") {
			t.Errorf("%s: a field is missing: %q", name, line)
		}
		for key, v := range e {
			switch v.(type) {
			case string, float64, bool:
			default:
				t.Errorf("%s: %s is no plain value: %q", name, key, line)
			}
		}
		// An event without a field is a sentence that one can only read.
		if len(e) < 4 || !e.has("what=") && !e.has("why=") && !e.has("user=") {
			t.Errorf("%s: an event without fields: %q", name, line)
		}
		list = append(list, e)
	}
	return list
}

// Whatever people, administrators and strangers do, each event is a line with the fields that one
// looks for, at the level that docs/operations.md names.
func TestLog(t *testing.T) {
	both(t, func(t *testing.T, w *world) {
		w.logs = []string{"--log-level", "debug", "--log-format", "json"}
		w.files = 400
		w.startVpnd("--metrics", "127.0.0.1:9586")
		w.startApp()
		w.policy(openPolicy)
		alice := w.person("alice", "phone")
		alice.signIn()
		for i := range 12 {
			alice.tunnel("POST", "/api/v1/session", map[string]string{"code": fmt.Sprintf("%06d", i)}, nil)
		}
		alice.get("http://" + tunnel4 + "/nothing")
		alice.get(app + "/api/files/none")

		stranger := w.public("stranger")
		shell := func(h *host, script string) {
			t.Helper()
			h.try("sh", "-c", script) // what comes of it is in the log
		}
		shell(stranger, "curl -sk -X POST https://"+gwPublic4+":8443/api/v1/enroll/begin -d '{'")
		shell(stranger, "curl -s http://"+gwPublic4+":8443/")
		shell(stranger, "curl -sk --tls-max 1.1 https://"+gwPublic4+":8443/")
		shell(stranger, "echo garbage | nc -w1 "+gwPublic4+" 8443")
		shell(stranger, "head -c 148 /dev/urandom | nc -u -w1 "+gwPublic4+" 51820")
		shell(stranger, "for i in $(seq 60); do sleep 3 | nc -w3 "+gwPublic4+" 8443 >/dev/null 2>&1 & done; sleep 4")
		// Local programs that do not speak gRPC, or may not ask what they ask.
		shell(w.gw, "echo garbage | nc -w1 -U "+w.path("run/control.sock"))
		shell(w.gw, "echo garbage | nc -w1 -U "+w.path("run/whois.sock"))
		shell(w.gw, "curl -s http://127.0.0.1:9586/nothing")
		shell(w.gw, binary("vpnctl")+" --socket "+w.path("run/whois.sock")+" user ls")
		shell(w.gw, "chmod o+rx "+w.path("run")+" && chmod o+rw "+w.path("run/control.sock")+" && sleep 1 | setpriv --reuid 65534 --regid 65534 --clear-groups nc -w1 -U "+w.path("run/control.sock"))
		shell(w.gw, binary("vpnctl")+" --socket "+w.path("run/control.sock")+" user show nobody")
		w.vpnctl("device", "disable", "alice/phone")
		if w.plane == "linux" {
			w.gw.run("ip", "addr", "del", tunnel4+"/16", "dev", w.iface)
			time.Sleep(3 * time.Second)
		}
		time.Sleep(time.Second)

		vpnd := events(t, "vpnd's log", w.vpnd.log.String())
		drop := events(t, "the app's log", w.app.log.String())
		type want struct {
			name   string
			in     []event
			fields []string
		}
		wants := []want{
			{"a start", vpnd, []string{"level=INFO", "msg=vpnd is ready", "plane=" + w.plane, "why="}},
			{"an enrolment", vpnd, []string{"level=INFO", "what=device.enrol", "user=alice", "device=phone", "who="}},
			{"where it came from", vpnd, []string{"level=INFO", "msg=enrolled a device", "user=alice", "device=phone", "source="}},
			{"a sign-in", vpnd, []string{"level=INFO", "what=session.start", "user=alice", "device=phone", "who=alice", "source=" + alice.addr4 + "," + alice.addr6, "why=", "index="}},
			{"a wrong code", vpnd, []string{"level=INFO", "what=code.wrong", "user=alice", "who=alice", "why="}},
			{"a lock", vpnd, []string{"level=WARN", "what=user.lock", "user=alice"}},
			{"a policy", vpnd, []string{"level=INFO", "what=policy.apply", "who=uid 0"}},
			{"a change by an administrator", vpnd, []string{"level=INFO", "what=device.disable", "user=alice", "device=phone", "who=uid 0"}},
			{"a refused code", vpnd, []string{"level=DEBUG", "part=portal", "what=POST /api/v1/session", "user=alice", "device=phone", "source=", "status=401", "why=code_wrong"}},
			{"a page that is not there", vpnd, []string{"level=DEBUG", "part=portal", "what=GET (no such path)", "source=", "why="}},
			{"a refused enrolment", vpnd, []string{"level=DEBUG", "part=portal", "what=POST /api/v1/enroll/begin", "source=", "why="}},
			{"a handshake without TLS", vpnd, []string{"level=DEBUG", "part=portal", "what=tls.handshake", "source=", "why="}},
			{"too many connections", vpnd, []string{"level=WARN", "part=accept", "msg=refused connections", "what=public portal", "count=", "source=192.0.2.12", "why="}},
			{"somebody else at the socket", vpnd, []string{"level=WARN", "part=api", "what=control socket", "who=uid 65534", "why="}},
			{"a call that is refused", vpnd, []string{"level=DEBUG", "part=api", "what=/vpn.v1.UserService/GetUser", "who=uid 0", "why=no_user"}},
			{"the app's start", drop, []string{"level=INFO", "msg=answering", "what="}},
			{"a file that is not there", drop, []string{"level=DEBUG", "what=GET /api/files/{id}", "source=", "status=", "why="}},
		}
		if w.plane == "linux" {
			wants = append(wants, want{"a change by hand", vpnd, []string{"level=WARN", "msg=put right what was changed by hand", "what=", "why="}})
		}
		for _, c := range wants {
			found := false
			for _, e := range c.in {
				found = found || e.has(c.fields...)
			}
			if !found {
				t.Errorf("%s: no event has %q", c.name, c.fields)
			}
		}
		if t.Failed() {
			t.Logf("vpnd's log:\n%s\nthe app's:\n%s", w.vpnd.log, w.app.log)
		}
	})
}
