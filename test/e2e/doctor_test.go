package e2e

import (
	"encoding/json"
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"
)

// findings are what vpnctl doctor says of the gateway, by code, and whether it is content.
func (w *world) findings() (byCode map[string]string, content bool) {
	w.t.Helper()
	out, err := w.gw.try(binary("vpnctl"), "--socket", w.path("run/control.sock"), "-o", "json", "doctor")
	var r struct {
		Findings []struct{ Code, Severity, Text, Remedy string }
	}
	if e := json.Unmarshal([]byte(out), &r); e != nil || len(r.Findings) == 0 {
		w.t.Fatalf("vpnctl doctor: %v, %v in %s", err, e, out)
	}
	byCode = map[string]string{}
	for _, f := range r.Findings {
		byCode[f.Code] += f.Text + "\n"
		if f.Remedy == "" && f.Severity != "ok" {
			w.t.Errorf("%s has no remedy", f.Code)
		}
	}
	return byCode, err == nil
}

// The doctor finds nothing in a healthy installation, and each thing that is broken in it.
func TestDoctor(t *testing.T) {
	for _, plane := range []string{"linux", "netstack"} {
		t.Run(plane, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, plane)
			w.startVpnd()
			alice := w.person("alice", "phone")
			alice.signIn()
			found, content := w.findings()
			if !content {
				t.Errorf("in a healthy world something must be done: %v", found)
			}
			if !strings.Contains(found["self_test_ok"], "answer on this host") {
				t.Errorf("the self-test says %v", found)
			}
			if list := w.vpnctl("device", "ls"); strings.Contains(list, "self-test") || strings.Count(strings.TrimSpace(list), "\n") != 1 {
				t.Errorf("after a self-test the devices are\n%s", list)
			}
			t.Logf("%s", w.gw.run("sh", "-c", binary("vpnctl")+" --socket "+w.path("run/control.sock")+" doctor 2>&1; true"))

			expect := func(code, says string) {
				t.Helper()
				found, content := w.findings()
				if text, ok := found[code]; !ok || !strings.Contains(text, says) {
					t.Errorf("the doctor does not find %s (%q): %v", code, says, found)
				} else if content {
					t.Errorf("%s does not make the exit code 1", code)
				}
			}
			w.policy(`{"hosts": {"db": "` + lan4 + `", "far": "203.0.113.9"}, "grants": [
				{"src": ["alice"], "dst": ["db"], "ip": ["tcp:5432"]},
				{"src": ["alice"], "dst": ["far"], "ip": ["tcp:22"]},
				{"src": ["tag:site"], "dst": ["db"], "ip": ["tcp:22"]}], "tagOwners": {"tag:site": []}}`)
			found, _ = w.findings()
			for code, says := range map[string]string{"grant_unrouted": "203.0.113.9", "grant_idle": "line 4", "host_closed": lan4 + ":5432"} {
				if !strings.Contains(found[code], says) {
					t.Errorf("the doctor does not find %s (%q): %v", code, says, found)
				}
			}
			if plane == "linux" {
				w.gw.run("nft", "add table inet other; add chain inet other input { type filter hook input priority 0; policy drop; }")
				expect("firewall_drops", "51820")
				w.gw.run("nft", "delete", "table", "inet", "other")
				w.gw.run("nft", "add table inet other; add chain inet other input { type filter hook input priority 0; }; add rule inet other input iifname "+w.iface+" meta l4proto tcp drop")
				expect("self_test_page", "no page")
				w.gw.run("nft", "delete", "table", "inet", "other")
				eventually(t, 20*time.Second, "a client from outside is seen", func() error {
					if found, _ = w.findings(); !strings.Contains(found["outside_seen"], "alice/phone came from 192.0.2.") {
						return fmt.Errorf("%v", found)
					}
					return nil
				})
			}
			w.gw.run("nft", "add table inet other; add chain inet other input { type filter hook input priority 0; }; add rule inet other input iif lo udp dport 51820 drop")
			expect("self_test_handshake", "no handshake")
			w.gw.run("nft", "delete", "table", "inet", "other")
			w.gw.run("chown", "4321", w.path("sealing.key"))
			expect("files_wrong", "sealing.key")
			w.gw.run("chown", "0", w.path("sealing.key"))

			w.vpnd.stop(t, syscall.SIGTERM)
			expect("vpnd_down", "there is no socket")
		})
	}
}

// A vpnd that is killed in its self-test leaves a peer that opens nothing, and that is gone at
// the end of its minute though another vpnd runs by then. Nobody takes it for a device.
func TestSelfTestOfAKilledVpnd(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "linux")
	w.startVpnd()
	w.gw.run("nft", "add table inet other; add chain inet other input { type filter hook input priority 0; }; add rule inet other input iif lo udp dport 51820 drop")
	look := w.gw.start(nil, binary("vpnctl"), "--socket", w.path("run/control.sock"), "doctor")
	peers := func() int { return len(strings.Fields(w.gw.run("wg", "show", w.iface, "peers"))) }
	eventually(t, 10*time.Second, "the self-test is a peer", func() error {
		if n := peers(); n != 1 {
			return fmt.Errorf("%d peers", n)
		}
		return nil
	})
	begun := time.Now()
	w.kill9()
	<-look.done
	w.gw.run("nft", "delete", "table", "inet", "other")
	w.startVpnd()
	if list := strings.TrimSpace(w.vpnctl("device", "ls")); strings.Contains(list, "self-test") || strings.Contains(w.vpnctl("status"), "1 device") {
		t.Errorf("a self-test is taken for a device:\n%s\n%s", list, w.vpnctl("status"))
	}
	eventually(t, 70*time.Second, "the self-test is gone", func() error {
		if n := peers(); n != 0 {
			return fmt.Errorf("%d peers", n)
		}
		return nil
	})
	if took := time.Since(begun); took > 63*time.Second {
		t.Errorf("it was there for %v", took)
	}
	if found, content := w.findings(); !content || found["self_test_ok"] == "" {
		t.Errorf("the next one: %v", found)
	}
}
