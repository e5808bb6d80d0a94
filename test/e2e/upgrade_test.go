package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// newerVersion is that of a vpnd which raises the state to a level that ours does not know.
const newerVersion = "9.0-newer"

// An installed gateway is upgraded from the package of an earlier commit while a client is
// signed in, on to one that raises the state's level, and back, which does not work and says
// what does.
func TestUpgrade(t *testing.T) {
	older := olderDeb(t)
	newer := newerDeb(t, deb(t, ""))
	for _, init := range inits {
		t.Run(init, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, "linux")
			m := w.newMachine(w.gw, init)
			m.install(older)
			m.serves(20 * time.Second)
			m.logOnFailure()
			m.run("sh", "-c", "echo '# mine' >>/etc/vpnd/vpnd.toml && vpnctl settings set --session 7h")
			alice := w.person("alice", "phone")
			s := alice.signIn()
			before := m.vpndPID()
			same := func(when string) {
				t.Helper()
				var now session
				if alice.tunnel("GET", "/api/v1/session", nil, &now); now.State != "active" || !now.Expires.Equal(s.Expires) {
					t.Errorf("%s the session is %s and ends at %v, before at %v", when, now.State, now.Expires, s.Expires)
				}
				if status, body, _, err := alice.get("http://10.77.0.1:8080/api/whoami"); err != nil || status != 200 || !strings.Contains(body, "alice") {
					t.Errorf("%s the app says %d %s %v", when, status, body, err)
				}
				if out := m.run("tail", "-n", "1", "/etc/vpnd/vpnd.toml"); out != "# mine" {
					t.Errorf("%s the options end with %q", when, out)
				}
				if out := m.run("vpnctl", "settings", "show"); !regexp.MustCompile(`session +7 h`).MatchString(out) {
					t.Errorf("%s the settings are\n%s", when, out)
				}
			}
			same("before the upgrade")

			// 3 s are promised; the time-out is generous.
			silence := alice.silence()
			out := m.upgrade(deb(t, ""))
			longest := silence()
			t.Logf("the client's longest silence was %v", longest.Round(10*time.Millisecond))
			if longest > 10*time.Second*slow {
				t.Errorf("the client had no answer for %v", longest)
			}
			if m.vpndPID() == before {
				t.Errorf("the same process runs after the upgrade:\n%s", out)
			}
			if !strings.Contains(out, "runs, with 1 user and 1 device.") || !strings.Contains(out, "vpnctl doctor") {
				t.Errorf("the package does not say what runs:\n%s", out)
			}
			same("after the upgrade")

			m.upgrade(newer)
			if out := m.run("vpnctl", "status"); !strings.Contains(out, newerVersion) {
				t.Errorf("another vpnd than the newer runs:\n%s", out)
			}
			same("at the next level")

			// Back: the package installs, but its vpnd does not touch such a state.
			out = m.upgrade(deb(t, ""))
			if !strings.Contains(out, "vpnd does not run.") || !strings.Contains(out, "vpnctl doctor") {
				t.Errorf("the package does not say that vpnd does not run:\n%s", out)
			}
			eventually(t, 60*time.Second, "the older vpnd has given up", func() error {
				if init == "systemd" {
					if out, err := m.try("systemctl", "is-failed", "vpnd"); err != nil {
						return fmt.Errorf("%s", out)
					}
				}
				log := m.run("sh", "-c", "journalctl --no-pager -o cat -u vpnd 2>/dev/null; cat /var/log/vpnd/vpnd.log 2>/dev/null; true")
				if !strings.Contains(log, "needs vpnd "+newerVersion+" or a newer one") || !strings.Contains(log, "nothing is lost") || strings.Contains(log, "restore a backup") {
					return fmt.Errorf("its log is\n%s", tail(log, 1500))
				}
				return nil
			})

			m.upgrade(newer)
			m.serves(20 * time.Second)
			alice.shakeHands()
			alice.answers(t)
			same("with the newer vpnd again")
		})
	}
}

// upgrade puts another version of the package in the place of the one that is there, as
// somebody does who is not asked: changed options stay.
func (m *machine) upgrade(deb string) string {
	m.t.Helper()
	m.put(deb, "/root/vpnd.deb")
	return m.run("apt-get", "install", "-y", "-q", "--allow-downgrades", "-o", "Dpkg::Options::=--force-confold", "/root/vpnd.deb")
}

// silence asks the tunnel's portal all the time until the function that it returns is
// called, which gives the longest time without an answer.
func (c *client) silence() func() time.Duration {
	stop, done := make(chan struct{}), make(chan time.Duration)
	go func() {
		longest, last := time.Duration(0), time.Now()
		for ended := false; ; {
			if c.answered() {
				longest, last = max(longest, time.Since(last)), time.Now()
				if ended {
					done <- longest
					return
				}
			} else if time.Since(last) > time.Minute {
				done <- time.Since(last)
				return
			}
			select {
			case <-stop:
				ended = true
			default:
				time.Sleep(20 * time.Millisecond)
			}
		}
	}()
	return func() time.Duration { close(stop); return <-done }
}

// olderDeb is the package that test/older has built.
func olderDeb(t *testing.T) string {
	t.Helper()
	found, err := filepath.Glob(project(t, ".run/older/vpnd_*.deb"))
	if err != nil || len(found) != 1 {
		t.Fatalf("want one package in .run/older, found %q (%v): test/older builds it", found, err)
	}
	return found[0]
}

// newerDeb makes a package of a later version out of ours, with a vpnd of the next level.
func newerDeb(t *testing.T, ours string) string {
	t.Helper()
	dir := t.TempDir()
	tree := filepath.Join(dir, "tree")
	must(t, "dpkg-deb", "-R", ours, tree)
	c := exec.Command("go", "build", "-trimpath", "-tags", "vpnd_newer", "-ldflags", "-s -w -X main.version="+newerVersion, "-o", filepath.Join(tree, "usr/sbin/vpnd"), "../../cmd/vpnd")
	c.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := c.CombinedOutput(); err != nil {
		t.Fatalf("building vpnd: %v\n%s", err, out)
	}
	control := filepath.Join(tree, "DEBIAN/control")
	b, err := os.ReadFile(control)
	if err != nil {
		t.Fatal(err)
	}
	b = regexp.MustCompile(`(?m)^Version: .*$`).ReplaceAll(b, []byte("Version: "+newerVersion))
	if err := os.WriteFile(control, b, 0o644); err != nil {
		t.Fatal(err)
	}
	out := filepath.Join(dir, "newer.deb")
	must(t, "dpkg-deb", "-Zgzip", "-z1", "--root-owner-group", "-b", tree, out)
	return out
}
