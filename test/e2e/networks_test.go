package e2e

import (
	"strings"
	"testing"
	"time"
)

// tunnelState is all of vpnd's that a manager of networks could take away.
func (m *machine) tunnelState() string {
	m.t.Helper()
	return m.run("sh", "-c", "ip -br addr show dev vpn0; ip route show table all dev vpn0 | sort; ip -6 route show table all dev vpn0 | sort; ip rule; ip -6 rule; nft list tables 2>/dev/null; true")
}

// drifts is how often vpnd has put right what somebody else had changed. NetworkManager sets
// addr_gen_mode anew on each interface that it has not to manage, when it starts.
func (m *machine) drifts() (n int) {
	m.t.Helper()
	for line := range strings.Lines(m.run("vpnctl", "audit", "-n", "10000")) {
		if strings.Contains(line, "gateway.drift") && !strings.Contains(line, "addr_gen_mode") {
			n++
		}
	}
	return n
}

// systemd-networkd starts, starts again and reconfigures, beside an installed vpnd, with an administrator's file
// that would take every interface: the tunnel's address, routes and rules stay, and a client's session
// goes on. Without the package's files it takes them away, so the test can fail.
func TestInstalledBesideNetworkd(t *testing.T) {
	t.Parallel()
	for _, system := range []string{"systemd", "systemd-13"} {
		t.Run(system, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, "linux")
			m := w.newMachine(w.gw, system)
			m.install(deb(t, ""))
			m.serves(20 * time.Second)
			m.logOnFailure()
			alice := w.person("alice", "phone")
			alice.signIn()
			// Where udev runs, networkd meets a link after it has seen addresses and rules; without
			// it, as here, it takes the same steps when it is told to reconfigure one.
			m.run("ip", "link", "add", "lan0", "type", "veth", "peer", "name", "lan1")
			m.run("sh", "-c", `mkdir -p /etc/systemd/network && printf '[Match]\nName=lan0 vpn*\n[Network]\nLinkLocalAddressing=no\n' >/etc/systemd/network/80-all.network`)
			before, drifts := m.tunnelState(), m.drifts()
			for _, do := range []string{"systemctl start systemd-networkd", "systemctl restart systemd-networkd", "networkctl reconfigure lan0", "networkctl reload", "networkctl reconfigure vpn0"} {
				m.run("sh", "-c", do)
				time.Sleep(4 * time.Second) // vpnd would have put right and audited what was taken
				if after := m.tunnelState(); after != before {
					t.Errorf("after %s there is\n%s\nbefore it there was\n%s", do, after, before)
				}
			}
			if n := m.drifts(); n != drifts {
				t.Errorf("systemd-networkd has taken away what vpnd put right:\n%s", m.run("vpnctl", "audit", "-n", "20"))
			}
			if status, body, _, err := alice.get("http://10.77.0.1:8080/api/whoami"); err != nil || status != 200 {
				t.Errorf("the app: %d %s %v", status, body, err)
			}
			m.run("rm", "/usr/lib/systemd/network/10-vpnd.network", "/usr/lib/systemd/networkd.conf.d/vpnd.conf")
			m.run("sh", "-c", "systemctl restart systemd-networkd && networkctl reconfigure lan0 vpn0")
			time.Sleep(4 * time.Second)
			taken := m.run("vpnctl", "audit", "-n", "50")
			for _, what := range []string{"address", "rule"} {
				if !strings.Contains(taken, what) {
					t.Errorf("without the package's files systemd-networkd takes no %s away: what do they do?\n%s", what, taken)
				}
			}
		})
	}
}

// NetworkManager, which otherwise asks for an address on each interface that it finds, leaves the
// tunnel's alone; without the package's file it counts it among its own.
func TestInstalledBesideNetworkManager(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "linux")
	m := w.newMachine(w.gw, "network-manager")
	m.install(deb(t, ""))
	m.serves(20 * time.Second)
	m.logOnFailure()
	alice := w.person("alice", "phone")
	alice.signIn()
	before, drifts := m.tunnelState(), m.drifts()
	state := func() string {
		return m.run("nmcli", "-t", "-g", "GENERAL.STATE,GENERAL.NM-MANAGED", "device", "show", "vpn0")
	}
	for _, do := range []string{"restart", "reload", "restart"} {
		m.run("systemctl", do, "NetworkManager")
		time.Sleep(4 * time.Second)
		if after := m.tunnelState(); after != before {
			t.Errorf("after systemctl %s NetworkManager there is\n%s\nbefore it there was\n%s", do, after, before)
		}
	}
	if out := state(); !strings.Contains(out, "unmanaged") {
		t.Errorf("NetworkManager manages vpn0: %s", out)
	}
	if n := m.drifts(); n != drifts {
		t.Errorf("NetworkManager has taken away what vpnd put right:\n%s", m.run("vpnctl", "audit", "-n", "20"))
	}
	if status, body, _, err := alice.get("http://10.77.0.1:8080/api/whoami"); err != nil || status != 200 {
		t.Errorf("the app: %d %s %v", status, body, err)
	}
	m.run("rm", "/usr/lib/NetworkManager/conf.d/vpnd.conf")
	m.run("systemctl", "restart", "NetworkManager")
	time.Sleep(4 * time.Second)
	if out := state(); strings.Contains(out, "unmanaged") {
		t.Errorf("without the package's file NetworkManager leaves vpn0 alone, too: what does it do? %s", out)
	}
}
