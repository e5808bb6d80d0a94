package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"
)

// inits are the two kinds of process 1 that `service vpnd` works under.
var inits = []string{"systemd", "sysvinit"}

// install puts the package on a machine as an administrator does, recommended packages and
// all, and sees that no kernel comes along.
func (m *machine) install(deb string) string {
	m.t.Helper()
	m.put(deb, "/root/vpnd.deb")
	out := m.run("apt-get", "install", "-y", "-q", "/root/vpnd.deb")
	if strings.Contains(out, "linux-image") || strings.Contains(out, "wireguard-dkms") {
		m.t.Errorf("installing vpnd brings a kernel:\n%s", out)
	}
	return out
}

// serves waits until vpnd answers on the machine.
func (m *machine) serves(within time.Duration) {
	m.t.Helper()
	eventually(m.t, within, "vpnd answers", func() error { _, err := m.try("vpnctl", "status"); return err })
}

// logOnFailure shows what the service has logged when the test fails.
func (m *machine) logOnFailure() {
	m.t.Cleanup(func() {
		if m.t.Failed() {
			out, err := m.try("sh", "-c", "journalctl --no-pager -o cat -u vpnd -u vpnd-app 2>/dev/null | tail -n 70; tail -n 70 /var/log/vpnd/*.log 2>/dev/null; ls -la /run/vpnd /var/lib/vpnd /etc/vpnd /run/wireguard")
			m.t.Logf("the service's log:\n%s %v", out, err)
		}
	})
}

// vpndPID is the process of the service.
func (m *machine) vpndPID() int {
	m.t.Helper()
	pid, err := strconv.Atoi(strings.TrimSpace(m.run("pgrep", "-x", "-u", "vpnd", "vpnd")))
	if err != nil {
		m.t.Fatal(err)
	}
	return pid
}

// The life of an installed gateway, from apt install to purge.
func TestInstall(t *testing.T) {
	for _, init := range inits {
		t.Run(init, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, "linux")
			m := w.newMachine(w.gw, init)
			out := m.install(deb(t, ""))
			for _, line := range []string{"Invite the first person:     vpnctl user add NAME", "If something is in the way:  vpnctl doctor"} {
				if !strings.Contains(out, line) {
					t.Errorf("the package does not say %q:\n%s", line, out)
				}
			}
			m.serves(20 * time.Second)
			m.logOnFailure()
			if out := m.run("vpnctl", "status"); !strings.Contains(out, "\nplane         linux\n") {
				t.Errorf("another plane than linux, though there is a TUN device:\n%s", out)
			}
			t.Run("privileges", func(t *testing.T) { installedPrivileges(t, m) })

			alice := w.person("alice", "phone")
			if status, _, _, err := alice.get("http://10.77.0.1:8080/"); err != nil || status != 303 {
				t.Errorf("the app before signing in: %d, %v; want a redirect to the sign-in page", status, err)
			}
			s := alice.signIn()
			app := func(when string) {
				t.Helper()
				eventually(t, 60*time.Second, "the app answers "+when, func() error {
					status, body, _, err := alice.get("http://10.77.0.1:8080/api/whoami")
					if err != nil || status != 200 || !strings.Contains(body, "alice") {
						return fmt.Errorf("%d %s %v", status, body, err)
					}
					return nil
				})
				var now session
				if alice.tunnel("GET", "/api/v1/session", nil, &now); !now.Expires.Equal(s.Expires) {
					t.Errorf("%s the session ends at %v, before at %v", when, now.Expires, s.Expires)
				}
			}
			app("after signing in")

			m.run("service", "vpnd", "restart")
			app("after a restart")
			m.run("service", "vpnd", "reload")
			app("after a reload")
			if out := m.run("service", "vpnd", "status"); !strings.Contains(out, "running") {
				t.Errorf("service vpnd status: %s", out)
			}

			t.Run("kill", func(t *testing.T) { installedKill(t, m, init) })
			app("after kill -9")

			m.reboot()
			m.serves(30 * time.Second)
			app("after a reboot")

			m.run("service", "vpnd", "stop")
			if out, err := m.try("service", "vpnd", "status"); err == nil {
				t.Errorf("service vpnd status says of a stopped service: %s", out)
			}
			m.run("service", "vpnd", "start")
			app("after stop and start")

			t.Run("remove", func(t *testing.T) { installedRemoval(t, m) })
		})
	}
}

// installedPrivileges looks at what the processes are allowed.
func installedPrivileges(t *testing.T, m *machine) {
	m = m.in(t)
	want := map[string]struct{ user, caps string }{
		"vpnd":          {"vpnd", "0000000000003400"}, // CAP_NET_BIND_SERVICE 10, NET_ADMIN 12, NET_RAW 13
		"protected-app": {"vpnd-app", "0000000000000000"},
	}
	for name, w := range want {
		pid := strings.TrimSpace(m.run("pgrep", "-x", "-u", w.user, name))
		status := m.run("cat", "/proc/"+pid+"/status")
		for _, field := range []string{"CapEff", "CapBnd", "CapPrm"} {
			if !strings.Contains(status, field+":\t"+w.caps+"\n") {
				t.Errorf("%s runs with other capabilities than %s in %s:\n%s", name, w.caps, field, status)
			}
		}
		if !strings.Contains(status, "NoNewPrivs:\t1\n") {
			t.Errorf("%s can gain privileges", name)
		}
	}
	if out := m.run("sh", "-c", "stat -c '%U:%a %n' /etc/vpnd/sealing.key /var/lib/vpnd /run/vpnd/control.sock /run/vpnd/whois.sock /run/vpnd-app/app.sock"); out !=
		"vpnd:600 /etc/vpnd/sealing.key\nvpnd:700 /var/lib/vpnd\nvpnd:600 /run/vpnd/control.sock\nvpnd:660 /run/vpnd/whois.sock\nvpnd-app:660 /run/vpnd-app/app.sock" {
		t.Errorf("owners and modes:\n%s", out)
	}
}

// installedKill kills vpnd as a crash would: systemd brings it back, under sysvinit it
// stays down with the gateway closed, and says so.
func installedKill(t *testing.T, m *machine, init string) {
	m = m.in(t)
	old := m.vpndPID()
	m.run("kill", "-9", fmt.Sprint(old))
	if init == "systemd" {
		eventually(t, 5*time.Second, "systemd brings vpnd back", func() error {
			out, err := m.try("vpnctl", "status")
			if err == nil && m.vpndPID() == old {
				return fmt.Errorf("it was not killed")
			}
			_ = out
			return err
		})
		return
	}
	eventually(t, 5*time.Second, "vpnd has gone", func() error {
		if _, err := m.try("pgrep", "-x", "-u", "vpnd", "vpnd"); err == nil {
			return fmt.Errorf("not yet")
		}
		return nil
	})
	out, err := m.try("service", "vpnd", "status")
	if err == nil || !strings.Contains(out+err.Error(), "closed") {
		t.Errorf("service vpnd status says of a killed service: %s %v", out, err)
	}
	m.run("service", "vpnd", "start")
	m.serves(10 * time.Second)
	installedInittab(t, m)
}

// installedInittab puts the line that docs/install.md gives into /etc/inittab: init brings back a
// vpnd that was killed, and leaves one alone that was stopped.
func installedInittab(t *testing.T, m *machine) {
	page, err := os.ReadFile(project(t, "docs/install.md"))
	if err != nil {
		t.Fatal(err)
	}
	line := regexp.MustCompile("(?m)^vpnd:.*$").FindString(string(page))
	if line == "" {
		t.Fatal("docs/install.md has no line for /etc/inittab")
	}
	m.run("sh", "-c", `cp /etc/inittab /root/inittab && printf '%s\n' "$0" >>/etc/inittab && telinit q`, line)
	old := m.vpndPID()
	m.run("kill", "-9", fmt.Sprint(old))
	eventually(t, 40*time.Second, "init brings vpnd back", func() error {
		if _, err := m.try("vpnctl", "status"); err != nil {
			return err
		}
		if m.vpndPID() == old {
			return fmt.Errorf("it was not killed")
		}
		return nil
	})
	if out := m.run("service", "vpnd", "status"); !strings.Contains(out, "running") {
		t.Errorf("service vpnd status of what init has started: %s", out)
	}
	m.run("service", "vpnd", "stop")
	for range 45 { // two of init's looks
		time.Sleep(time.Second)
		if out, err := m.try("pgrep", "-x", "-u", "vpnd", "vpnd"); err == nil {
			t.Fatalf("init started a vpnd that was stopped: %s", out)
		}
	}
	m.run("sh", "-c", "mv /root/inittab /etc/inittab && telinit q && service vpnd start")
	m.serves(10 * time.Second)
}

// installedRemoval removes the package, installs it again with its state, and purges it.
func installedRemoval(t *testing.T, m *machine) {
	m = m.in(t)
	m.logOnFailure()
	before := m.run("vpnctl", "device", "ls")
	m.run("apt-get", "remove", "-y", "-q", "vpnd")
	if out, err := m.try("pgrep", "-u", "vpnd,vpnd-app"); err == nil {
		t.Errorf("processes are left after the removal: %s", out)
	}
	if out := m.run("ip", "-brief", "link"); strings.Contains(out, "vpn0") {
		t.Errorf("an interface is left after the removal: %s", out)
	}
	m.run("apt-get", "install", "-y", "-q", "/root/vpnd.deb")
	m.serves(20 * time.Second)
	if after := m.run("vpnctl", "device", "ls"); !strings.Contains(after, "alice/phone") {
		t.Errorf("installed again, the state is another:\n%s\nbefore:\n%s", after, before)
	}
	m.run("apt-get", "purge", "-y", "-q", "vpnd")
	left := m.run("sh", "-c", "find / -xdev \\( -name '*vpnd*' -o -name 'protected-app*' -o -name vpnctl \\) -not -path '/root/*' -not -path '/proc/*' -not -path '/sys/*' -not -path '/var/log/journal/*' -not -path '/var/lib/dpkg/*' -not -path '/var/cache/*'; ls /etc/rc?.d | grep vpnd || true")
	if left != "" {
		t.Errorf("left after the purge:\n%s", left)
	}
	for _, user := range []string{"vpnd", "vpnd-app"} {
		m.run("getent", "passwd", user) // nobody else is to get its number
	}
}

// Where an administrator has said that nothing may be started (policy-rc.d), nothing is.
func TestInstallStartsNothing(t *testing.T) {
	t.Parallel()
	for _, init := range inits {
		t.Run(init, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, "linux")
			m := w.newMachine(w.gw, init)
			if err := os.WriteFile(filepath.Join(m.root, "usr/sbin/policy-rc.d"), []byte("#!/bin/sh\nexit 101\n"), 0o755); err != nil {
				t.Fatal(err)
			}
			m.install(deb(t, ""))
			if out, err := m.try("pgrep", "-u", "vpnd,vpnd-app"); err == nil {
				t.Errorf("started against policy-rc.d: %s", out)
			}
		})
	}
}

// What an earlier `sudo make run` left is the service's after the installation, except what
// has a second name and could be any file.
func TestInstallTakesOver(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "linux")
	m := w.newMachine(w.gw, "systemd")
	m.run("sh", "-c", `mkdir -p /etc/vpnd /var/lib/vpnd && chmod 700 /var/lib/vpnd && touch /etc/victim /etc/target &&
		ln /etc/victim /var/lib/vpnd/hard && ln -s /etc/target /var/lib/vpnd/soft && touch /var/lib/vpnd/plain && chmod 600 /var/lib/vpnd/plain`)
	m.install(deb(t, ""))
	if out := m.run("stat", "-c", "%U %n", "/etc/victim", "/etc/target", "/var/lib/vpnd", "/var/lib/vpnd/plain"); out !=
		"root /etc/victim\nroot /etc/target\nvpnd /var/lib/vpnd\nvpnd /var/lib/vpnd/plain" {
		t.Errorf("owners after the installation:\n%s", out)
	}
}
