package e2e

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// With masquerading off a resource sees the device's own address, its network needs the route
// that status names, and nothing else changes; switched on again, all is as before.
func TestMasquerade(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "linux")
	w.startVpnd()
	w.web("80")
	w.policy(`{"hosts": {"lan": "198.51.100.10", "lan6": "2001:db8:2::10"}, "grants": [{"src": ["alice"], "dst": ["lan", "lan6"], "ip": ["tcp:80"]}]}`)
	alice := w.person("alice", "phone")
	alice.signIn()
	sees := func(when, url, want string) {
		t.Helper()
		eventually(t, 10*time.Second, "the resource answers "+when, func() error {
			status, body, _, err := alice.get(url)
			if err != nil || status != 200 {
				return fmt.Errorf("%d %v", status, err)
			}
			if !strings.Contains(body, want) {
				return fmt.Errorf("it sees %q, not %s", body, want)
			}
			return nil
		})
	}
	url4, url6 := "http://"+lan4+"/", "http://["+lan6+"]/"
	sees("by default", url4, "resource to 198.51.100.1:")
	sees("by default", url6, "resource to [2001:db8:2::1]:")

	w.vpnctl("settings", "set", "--masquerade", "off")
	if s := w.vpnctl("status"); !strings.Contains(s, "10.77.0.0/16") || !strings.Contains(s, "route") {
		t.Errorf("status does not say which route the resource's network needs now:\n%s", s)
	}
	if status, _, _, err := alice.get(url4); err == nil {
		t.Errorf("the resource answers without a route: %d", status)
	}
	w.lan.run("ip", "route", "add", "10.77.0.0/16", "via", "198.51.100.1")
	w.lan.run("ip", "route", "add", "fd77::/64", "via", "2001:db8:2::1")
	sees("with its route", url4, "resource to "+alice.addr4+":")
	sees("with its route", url6, "resource to ["+alice.addr6+"]:")

	w.vpnctl("settings", "set", "--masquerade", "on")
	sees("masqueraded again", url4, "resource to 198.51.100.1:")
}
