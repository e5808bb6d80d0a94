package e2e

import (
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"
)

// vpnctl doctor --wait says how far the packets of a real client come: to this host's line,
// to a handshake, through the tunnel. It ends when they are through.
func TestDoctorWait(t *testing.T) {
	for _, plane := range []string{"linux", "netstack"} {
		t.Run(plane, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, plane)
			w.startVpnd()
			var added struct {
				Invitation struct{ Link string } `json:"invitation"`
			}
			w.vpnctlJSON(&added, "user", "add", "alice")
			alice := &client{host: w.public("phone"), w: w, user: "alice", device: "phone"}
			alice.enrol(added.Invitation.Link)
			says := func(p *process, what string) {
				t.Helper()
				eventually(t, 30*time.Second, "doctor says: "+what, func() error {
					if out := p.log.String(); !strings.Contains(out, what) {
						return fmt.Errorf("it says\n%s", out)
					}
					return nil
				})
			}
			ends := func(p *process, code int) {
				t.Helper()
				select {
				case <-p.done:
				case <-time.After(30 * time.Second):
					t.Fatalf("it waits on:\n%s", p.log)
				}
				if got := p.cmd.ProcessState.ExitCode(); got != code {
					t.Errorf("exit code %d, want %d:\n%s", got, code, p.log)
				}
			}
			wait := func(flag string) *process {
				return w.gw.start(nil, binary("vpnctl"), "--socket", w.path("run/control.sock"), "doctor", flag)
			}

			p := wait("--wait=3s")
			says(p, "waiting 3 s for a client from outside")
			ends(p, 1)
			says(p, "nothing came to UDP port 51820 within 3 s")

			p = wait("--wait")
			says(p, "waiting 3 min for a client from outside")
			// Whoever has a key that is no device's is heard, and not answered.
			own := regexp.MustCompile("PrivateKey = (.*)").FindStringSubmatch(alice.conf)[1]
			alice.conf = strings.Replace(alice.conf, own, strings.TrimSpace(alice.run("wg", "genkey")), 1)
			alice.up()
			alice.try("ping", "-c", "1", "-W", "1", tunnel4)
			says(p, "packets of 192.0.2.")
			says(p, "WireGuard has not shaken hands")
			if _, err := alice.tryInput(own, "wg", "set", alice.iface, "private-key", "/dev/stdin"); err != nil {
				t.Fatal(err)
			}
			alice.try("ping", "-c", "3", "-i", "0.5", "-W", "1", tunnel4)
			says(p, "alice/phone came from 192.0.2.")
			says(p, "this gateway is reached from outside")
			ends(p, 0)
		})
	}
}
