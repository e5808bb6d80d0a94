package e2e

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// The sealing key comes as a credential of systemd, in plain and encrypted, on each Debian.
func TestInstalledCredential(t *testing.T) {
	for _, system := range []string{"systemd", "systemd-13"} {
		t.Run(system, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, "linux")
			m := w.newMachine(w.gw, system)
			m.install(deb(t, ""))
			m.serves(20 * time.Second)
			m.logOnFailure()
			m.run("vpnctl", "user", "add", "alice")
			m.run("install", "-m", "0600", "/etc/vpnd/sealing.key", "/root/vpnd-sealing.key")
			m.run("rm", "/etc/vpnd/sealing.key")
			m.run("systemd-creds", "encrypt", "--name=sealing.key", "/root/vpnd-sealing.key", "/root/vpnd-sealing.cred")
			for _, load := range []string{"LoadCredential=sealing.key:/root/vpnd-sealing.key", "LoadCredentialEncrypted=sealing.key:/root/vpnd-sealing.cred"} {
				drop := "[Service]\n" + load + "\nEnvironment=VPND_SEALING_KEY=%d/sealing.key\n"
				m.run("sh", "-c", `mkdir -p /etc/systemd/system/vpnd.service.d && printf %s "$0" >/etc/systemd/system/vpnd.service.d/key.conf && systemctl daemon-reload && systemctl restart vpnd`, drop)
				m.serves(20 * time.Second)
				if out := m.run("vpnctl", "user", "ls"); !strings.Contains(out, "alice") {
					t.Errorf("%s: another state:\n%s", load, out)
				}
				// vpnd has opened secrets with it: the state of another key is refused at the start.
				if out := m.run("sh", "-c", `tr '\0' '\n' </proc/$(pgrep -x -u vpnd vpnd)/environ | grep ^VPND_SEALING_KEY=`); out != "VPND_SEALING_KEY=/run/credentials/vpnd.service/sealing.key" {
					t.Errorf("%s: %s", load, out)
				}
				if out, err := m.try("ls", "/etc/vpnd/sealing.key"); err == nil {
					t.Errorf("%s: vpnd has made %s", load, out)
				}
				if strings.HasPrefix(load, "LoadCredential=") {
					m.run("rm", "/root/vpnd-sealing.key") // the encrypted one is enough
				}
			}
		})
	}
}

// Without a TUN device the netstack plane serves, and the file drop's socket takes connections
// from root and vpnd's user alone.
func TestInstalledWithoutTUN(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "netstack")
	m := w.newMachine(w.gw, "systemd")
	// Nothing makes one here: neither tmpfiles nor, as some do, nspawn.
	m.run("sh", "-c", "rm -f /dev/net/tun && mkdir -p /etc/tmpfiles.d && ln -s /dev/null /etc/tmpfiles.d/vpnd.conf")
	m.install(deb(t, ""))
	m.serves(20 * time.Second)
	m.logOnFailure()
	if out, err := m.try("ls", "-l", "/dev/net/tun"); err == nil {
		t.Fatalf("there is a TUN device: %s", out)
	}
	if _, err := w.gw.try("ip", "link", "add", "probe", "type", "wireguard"); err == nil {
		// The kernel's WireGuard needs no TUN device: this host would take it.
		w.gw.run("ip", "link", "del", "probe")
		m.run("sh", "-c", `echo 'plane = "netstack"' >>/etc/vpnd/vpnd.toml && systemctl restart vpnd`)
		m.serves(20 * time.Second)
	}
	if out := m.run("vpnctl", "status"); !strings.Contains(out, "\nplane         netstack\n") {
		t.Errorf("another plane than netstack:\n%s", out)
	}
	alice := w.person("alice", "phone")
	alice.signIn()
	eventually(t, 20*time.Second, "the app knows who is calling", func() error {
		status, body, _, err := alice.get("http://10.77.0.1:8080/api/whoami")
		if err != nil || status != 200 || !strings.Contains(body, "alice") {
			return fmt.Errorf("%d %s %v", status, body, err)
		}
		return nil
	})

	if out := m.run("stat", "-c", "%U:%G %a %n", "/run/vpnd-app", "/run/vpnd-app/app.sock"); out != "vpnd-app:vpnd 750 /run/vpnd-app\nvpnd-app:vpnd 660 /run/vpnd-app/app.sock" {
		t.Errorf("owners and modes:\n%s", out)
	}
	const stranger = "4711"
	for _, c := range []struct {
		uid, gid string
		answered bool
	}{{"root", "root", true}, {"vpnd", "vpnd", true}, {stranger, "vpnd", false}, {stranger, stranger, false}} {
		out, _ := m.try("sh", "-c", `{ printf 'PROXY TCP4 `+alice.addr4+` 10.77.0.1 40000 8080\r\nGET /api/whoami HTTP/1.1\r\nHost: 10.77.0.1:8080\r\nConnection: close\r\n\r\n'; sleep 2; } |
			setpriv --reuid "$0" --regid "$1" --clear-groups curl -s --max-time 5 --unix-socket /run/vpnd-app/app.sock telnet://app/`, c.uid, c.gid)
		if got := strings.HasPrefix(out, "HTTP/1.1 200 ") && strings.Contains(out, "alice"); got != c.answered {
			t.Errorf("uid %s, gid %s: answered %v: %q", c.uid, c.gid, got, out)
		}
	}
}
