package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"
)

// What `make run` starts, as root and as somebody without rights: one command to a page
// that works, the same state at the second run, and Ctrl-C ends all of it.
func TestRun(t *testing.T) {
	launcher := filepath.Join(t.TempDir(), "run")
	c := exec.Command("go", "build", "-o", launcher, "../../packaging/run")
	if out, err := c.CombinedOutput(); err != nil {
		t.Fatalf("building packaging/run: %v\n%s", err, out)
	}
	for _, who := range []string{"root", "somebody"} {
		t.Run(who, func(t *testing.T) {
			t.Parallel()
			root := who == "root"
			w := newWorld(t, map[bool]string{true: "linux", false: "netstack"}[root])
			bin := w.path("bin")
			if err := os.Mkdir(bin, 0o755); err != nil {
				t.Fatal(err)
			}
			for from, name := range map[string]string{launcher: "run", binary("vpnd"): "vpnd", binary("vpnctl"): "vpnctl", binary("protected-app"): "protected-app"} {
				must(t, "install", "-m", "755", from, filepath.Join(bin, name))
			}
			home := w.path("home")
			must(t, "install", "-d", "-o", stranger, "-g", stranger, "-m", "775", home)
			// Whatever the umask is, what vpnd keeps is for its user alone.
			args := []string{"sh", "-c", `umask 0; exec "$0" "$@"`, filepath.Join(bin, "run"), "-bin", bin}
			env := []string{"HOME=" + home, "VPND_INTERFACE=" + w.iface, "VPND_DATA=" + w.path("data"), "VPND_NETWORK=" + network, "PROTECTED_APP_DATA=" + w.path("files"), "VPND_CONTROL=" + w.path("run/control.sock"), "VPND_SEALING_KEY=" + w.path("sealing.key")}
			if !root {
				args = append(asStranger, args...)
				env = []string{"HOME=" + home, "XDG_STATE_HOME=", "XDG_CONFIG_HOME=", "VPND_NETWORK=" + network}
			}
			start := func(promises ...string) *process {
				t.Helper()
				p := w.gw.start(env, args...)
				for _, says := range promises {
					eventually(t, 60*time.Second, "the launcher says "+says, func() error {
						select {
						case <-p.done:
							t.Fatalf("it has ended:\n%s", p.log)
						default:
						}
						if !strings.Contains(p.log.String(), says) {
							return fmt.Errorf("not yet")
						}
						return nil
					})
				}
				return p
			}
			p := start("is ready", "plane         "+w.plane+":", "clients dial  "+gwPublic4+":51820", "vpnctl settings set --endpoint", "app           "+app+"/",
				"https://"+gwPublic4+":8443/enroll#", "user add NAME", "Stop with Ctrl-C", "answering")
			if !strings.Contains(p.log.String(), "alice") && root {
				t.Error("no first user is named")
			}
			link := regexp.MustCompile(`https://\S+/enroll#\S+`).FindString(p.log.String())
			uid := strings.TrimSpace(w.gw.run("sh", "-c", `for p in $(ip netns pids `+w.gw.name+`); do [ "$(cat /proc/$p/comm)" = protected-app ] || [ "$(tr '\0' ' ' < /proc/$p/cmdline | cut -d' ' -f1)" = protected-app ] && stat -c %u /proc/$p && break; done; true`))
			if want := map[bool]string{true: fmt.Sprint(nobody), false: stranger}[root]; uid != want {
				t.Errorf("the app runs as uid %q, want %s", uid, want)
			}
			// The invitation leads to a page that works.
			alice := &client{host: w.public("phone"), w: w, device: "phone"}
			alice.enrol(link)
			alice.up()
			alice.signIn()
			if status, body, _, err := alice.get(app + "/api/whoami"); err != nil || status != 200 || !strings.Contains(body, "phone") {
				t.Errorf("the app: %d %q %v", status, body, err)
			}
			data := map[bool]string{true: w.path("data"), false: filepath.Join(home, ".local/state/vpnd")}[root]
			if out := w.gw.run("find", data, "-type", "f", "!", "-perm", "600"); out != "" {
				t.Errorf("files of the data folder that are not for their owner alone:\n%s", out)
			}
			p.stop(t, syscall.SIGINT)
			if code := p.cmd.ProcessState.ExitCode(); code != 0 {
				t.Errorf("Ctrl-C gave exit code %d:\n%s", code, tail(p.log.String(), 500))
			}
			if left := strings.TrimSpace(w.gw.run("sh", "-c", `for p in $(ip netns pids `+w.gw.name+`); do tr '\0' ' ' < /proc/$p/cmdline; echo; done | grep -e '[v]pnd' -e '[p]rotected-app'; true`)); left != "" {
				t.Errorf("after Ctrl-C there is still %s", left)
			}

			p = start("is ready", "Invite the next person", "answering")
			if strings.Contains(p.log.String(), "/enroll#") {
				t.Error("the second run invites somebody")
			}
			alice.shakeHands()
			eventually(t, 20*time.Second, "the session goes on", func() error {
				if status, body, _, err := alice.get(app + "/api/whoami"); err != nil || status != 200 {
					return fmt.Errorf("%d %q %v", status, body, err)
				}
				return nil
			})
			p.stop(t, syscall.SIGINT)
		})
	}
}

// Flags come from arguments, else from VPND_…, else from the file of --config.
func TestFlagSources(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "netstack")
	conf := fmt.Sprintf("data = %q\nsealing-key = %q\ncontrol = %q\nplane = \"netstack\"\nwireguard = \":51001\"\nportal = \":8501\"\nendpoint = \"file.example:1\"\nnetwork = [\"10.50.0.0/16\", \"fd50::/64\"]\napp-port = 9999\n",
		w.path("data"), w.path("sealing.key"), w.path("run/control.sock"))
	if err := os.WriteFile(w.path("vpnd.toml"), []byte(conf), 0o600); err != nil {
		t.Fatal(err)
	}
	p := w.gw.start([]string{"VPND_CONFIG=" + w.path("vpnd.toml"), "VPND_PORTAL=:8502", "VPND_ENDPOINT=environment.example:2"},
		binary("vpnd"), "--endpoint", "argument.example:3")
	eventually(t, 30*time.Second, "vpnd is ready", func() error {
		if !strings.Contains(p.log.String(), "sealing key ") {
			return fmt.Errorf("not yet: %s", p.log)
		}
		return nil
	})
	for _, want := range []string{"argument.example:3 (UDP)", "https://argument.example:8502", "http://10.50.0.1:9999/", w.path("run/control.sock")} {
		if !strings.Contains(p.log.String(), want) {
			t.Errorf("it does not say %s:\n%s", want, p.log)
		}
	}
	if out := w.gw.run("ss", "-Hlun"); !strings.Contains(out, ":51001 ") {
		t.Errorf("it does not listen on UDP 51001: %s", out)
	}
}
