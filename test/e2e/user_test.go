package e2e

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// unitUser is a user of no other kind, as a unit's is.
const unitUser = 64077

// TestUnprivileged: as a user with the unit's three capabilities the linux plane does all that
// it does as root, says nothing that is not so, and leaves the host as it was.
func TestUnprivileged(t *testing.T) {
	w := newWorld(t, "linux")
	w.user = unitUser
	before := w.gw.run("sh", "-c", "ip rule; ip -6 rule; ip -o link | cut -d: -f2; nft list ruleset; cat /proc/sys/net/ipv4/ip_forward")
	w.startVpnd()
	status, err := w.gw.try("sh", "-c", "grep -E '^(Uid|CapEff|CapBnd)' /proc/"+fmt.Sprint(w.vpnd.cmd.Process.Pid)+"/status")
	if err != nil || !strings.Contains(status, fmt.Sprint(unitUser)) || strings.Count(status, "0000000000003400") != 2 {
		t.Fatalf("vpnd runs with other rights: %v\n%s", err, status) // bits 10, 12 and 13
	}
	w.policy(openPolicy)
	alice := w.person("alice", "phone")
	reach := func(destination string, want bool) {
		t.Helper()
		var r struct {
			Flows []struct {
				PlanePermits *bool  `json:"plane_permits"`
				PlaneError   string `json:"plane_error"`
			} `json:"flows"`
		}
		w.vpnctlJSON(&r, "policy", "explain", "alice/phone", destination)
		if len(r.Flows) != 1 || r.Flows[0].PlanePermits == nil || *r.Flows[0].PlanePermits != want {
			t.Errorf("%s: %+v, want %v", destination, r.Flows, want)
		}
	}
	reach("web:80", false)
	alice.signIn()
	reach("web:80", true)
	w.gw.run("ip", "addr", "flush", "dev", w.iface)
	eventually(t, 5*time.Second, "the addresses come back", func() error {
		if out := w.gw.run("ip", "addr", "show", "dev", w.iface); !strings.Contains(out, tunnel4) || !strings.Contains(out, tunnel6) {
			return fmt.Errorf("not yet: %s", out)
		}
		return nil
	})
	w.vpnctl("device", "disable", "alice/phone")
	reach("web:80", false)
	// What this user may not look at is said as that, and nothing else is amiss.
	_, err = w.gw.try("test", "-e", "/proc/net/ip_tables_names")
	legacy := err == nil
	var st struct {
		Complaints []string `json:"complaints"`
	}
	w.vpnctlJSON(&st, "status")
	said := false
	for _, c := range st.Complaints {
		if strings.Contains(c, "tables-legacy has a filter table could not be seen") {
			said = true
		} else {
			t.Errorf("status complains: %s", c)
		}
	}
	if said != legacy {
		t.Errorf("there are lists of iptables-legacy: %v; that they cannot be read is said: %v", legacy, said)
	}
	w.vpnd.stop(t, 15)
	after := w.gw.run("sh", "-c", "ip rule; ip -6 rule; ip -o link | cut -d: -f2; nft list ruleset; cat /proc/sys/net/ipv4/ip_forward")
	if after != before {
		t.Errorf("the host is not as it was:\n%s\nbefore:\n%s", after, before)
	}
}

// TestUnprivilegedWithoutTUN: where the TUN device is root's alone, "auto" says so before it
// takes the other plane, and "linux" says it as what keeps it from starting.
func TestUnprivilegedWithoutTUN(t *testing.T) {
	if _, err := newHost(t, "probe").try("ip", "link", "add", "wg9", "type", "wireguard"); err == nil {
		t.Log("this kernel has WireGuard, so no TUN device is needed")
		return
	}
	w := newWorld(t, "auto")
	w.user, w.tun = unitUser, "0600"
	w.startVpnd()
	said, _, _ := strings.Cut(w.vpnd.log.String(), "is ready")
	const reason = "leave to use the TUN device that is there (/dev/net/tun: permission denied"
	if !strings.Contains(said, "the data plane was chosen what=netstack why=\"the linux plane needs "+reason) {
		t.Errorf("it does not say first why it takes the netstack plane:\n%s", said)
	}
	w.vpnd.stop(t, 15)
	w.plane = "linux"
	if _, err := w.gw.try(w.vpndArgs()...); err == nil || !strings.Contains(err.Error(), reason) {
		t.Errorf("--plane linux: %v", err)
	}
}
