package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"
)

// A client that talks all the time hardly notices a restart: vpnd shakes hands with it. By
// itself it would notice after 15 s.
func TestRestartIsHardlyNoticed(t *testing.T) {
	both(t, func(t *testing.T, w *world) {
		// The client dials an address that is not the gateway's first, behind a filter that
		// lets in nothing but answers.
		w.gw.addr("eth0", "192.0.2.200/24")
		w.args = []string{"--endpoint", "192.0.2.200:51820", "--url", "https://" + gwPublic4 + ":8443"}
		w.startVpnd()
		alice := w.person("alice", "phone")
		alice.run("nft", `add table inet f; add chain inet f i { type filter hook input priority 0; policy drop; };
			add rule inet f i iifname { "lo", "`+alice.iface+`" } accept; add rule inet f i ct state established,related accept; add rule inet f i icmpv6 type != echo-request accept`)
		alice.answers(t)
		for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGKILL} {
			time.Sleep(3 * time.Second) // a crash leaves what was written before
			w.vpnd.stop(t, sig)
			if info, err := os.Stat(w.path("data/endpoints")); err != nil || info.Mode().Perm() != 0o600 {
				t.Errorf("the file of endpoints: %v %v", info, err)
			}
			begun := time.Now()
			w.startVpnd()
			for !alice.answered() {
				if time.Since(begun) > 10*time.Second*slow {
					t.Fatalf("after %v the client has no answer", sig)
				}
			}
			t.Logf("after %v: an answer %v after the start of the process", sig, time.Since(begun).Round(time.Millisecond))
		}

		// With a clock that is behind the file's it waits, and says so.
		w.vpnd.stop(t, syscall.SIGTERM)
		text, err := os.ReadFile(w.path("data/endpoints"))
		if err != nil {
			t.Fatal(err)
		}
		var f map[string]any
		if err := json.Unmarshal(text, &f); err != nil {
			t.Fatal(err)
		}
		then := time.Now().Add(4 * time.Second)
		f["written"], f["next"] = then, then.Add(time.Second)
		if text, err = json.Marshal(f); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(w.path("data/endpoints"), text, 0o600); err != nil {
			t.Fatal(err)
		}
		w.startVpnd()
		if !strings.Contains(w.vpnd.log.String(), "behind that of the process before this one") {
			t.Errorf("it does not say that the clock is behind:\n%s", w.vpnd.log)
		}
		for !alice.answered() {
			if time.Since(then) > 8*time.Second*slow {
				t.Fatal("with the clock behind the client has no answer")
			}
		}
		if time.Now().Before(then) {
			t.Error("it did not wait")
		}

		// What is not a list of endpoints is said, and in nobody's way.
		w.vpnd.stop(t, syscall.SIGTERM)
		if err := os.WriteFile(w.path("data/endpoints"), []byte("{"), 0o600); err != nil {
			t.Fatal(err)
		}
		w.startVpnd()
		if !strings.Contains(w.vpnd.log.String(), "endpoints is not used") {
			t.Errorf("a damaged file is not spoken of:\n%s", w.vpnd.log)
		}
	})
}

// answered says whether the portal in the tunnel answers a packet of the client's soon.
func (c *client) answered() bool {
	_, err := c.try("curl", "-s", "-o", "/dev/null", "--connect-timeout", "0.3", "--max-time", "1", "http://"+tunnel4+"/")
	return err == nil
}

// answers waits until the tunnel works.
func (c *client) answers(t *testing.T) {
	t.Helper()
	eventually(t, 20*time.Second, "the portal in the tunnel answers", func() error {
		if !c.answered() {
			return fmt.Errorf("not yet")
		}
		return nil
	})
}
