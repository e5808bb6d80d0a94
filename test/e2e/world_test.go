package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// world is a small internet: a gateway that runs vpnd and the protected app, a
// private network behind it with a resource, and a public network with clients and an
// outsider.
//
//	phone, laptop, outsider -- net (bridge) -- gw -- lan
//	       192.0.2.0/24, 2001:db8:1::/64          198.51.100.0/24, 2001:db8:2::/64
type world struct {
	t     *testing.T
	id    int
	plane string // "linux" or "netstack"
	net   *host
	gw    *host
	lan   *host
	dir   string // the gateway's files
	iface string
	args  []string // more arguments of vpnd
	logs  []string // arguments of vpnd and the app about their logs
	files int      // descriptors that vpnd may have; 0: as the test
	user  int      // as which vpnd runs, with the three capabilities of its unit; 0: as root
	tun   string   // with user: the mode of /dev/net/tun; "": 0666
	vpnd  *process
	app   *process
	stand *process // a WireGuard that stands in for a killed vpnd's
	seen  int      // public hosts so far
	// machine is the gateway where it boots a system of its own with vpnd's package.
	machine *machine
	// ctl runs vpnctl where the gateway is neither of these.
	ctl func(args ...string) string
}

// Addresses that do not change between worlds.
const (
	gwPublic4, gwPublic6 = "192.0.2.1", "2001:db8:1::1"
	lan4, lan6           = "198.51.100.10", "2001:db8:2::10"
	tunnel4, tunnel6     = "10.77.0.1", "fd77::1"
	network              = "10.77.0.0/16,fd77::/64"
	routes               = "198.51.100.0/24,2001:db8:2::/64"
	nobody               = 65534
)

// newWorld builds the networks, without vpnd.
func newWorld(t *testing.T, plane string) *world {
	t.Helper()
	id := int(worlds.Add(1))
	w := &world{t: t, id: id, plane: plane, iface: fmt.Sprintf("vpn%d", id), seen: 10}
	w.net = newHost(t, fmt.Sprintf("net%d", id))
	w.net.run("ip", "link", "add", "br0", "type", "bridge")
	w.net.run("ip", "link", "set", "br0", "up")
	w.gw = newHost(t, fmt.Sprintf("gw%d", id))
	w.plug(w.gw, "1")
	w.lan = newHost(t, fmt.Sprintf("lan%d", id))
	connect(t, w.gw, "eth1", w.lan, "eth0")
	w.gw.addr("eth1", "198.51.100.1/24")
	w.gw.addr("eth1", "2001:db8:2::1/64")
	w.lan.addr("eth0", lan4+"/24")
	w.lan.addr("eth0", lan6+"/64")
	w.dir = filepath.Join("/var/lib", fmt.Sprintf("world%d", id))
	for _, d := range []string{w.dir, w.path("run"), w.path("app")} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chown(w.path("app"), nobody, nobody); err != nil {
		t.Fatal(err)
	}
	return w
}

func (w *world) path(name string) string { return filepath.Join(w.dir, name) }

// plug connects a host to the public network under the host part n.
func (w *world) plug(h *host, n string) {
	w.t.Helper()
	port := "p" + n
	connect(w.t, h, "eth0", w.net, port)
	w.net.run("ip", "link", "set", port, "master", "br0")
	h.addr("eth0", "192.0.2."+n+"/24")
	h.addr("eth0", "2001:db8:1::"+n+"/64")
}

// public adds a host to the public network.
func (w *world) public(name string) *host {
	w.t.Helper()
	h := newHost(w.t, fmt.Sprintf("%s%d", name, w.id))
	w.seen++
	w.plug(h, fmt.Sprint(w.seen))
	return h
}

// startVpnd starts vpnd and waits until it serves.
func (w *world) startVpnd(more ...string) {
	w.t.Helper()
	w.startWith(w.vpndArgs(more...))
}

// startWith starts vpnd by a command of vpndArgs' form.
func (w *world) startWith(args []string) {
	w.t.Helper()
	w.vpnd = w.gw.start(nil, args...)
	eventually(w.t, 60*time.Second, "vpnd is ready", func() error {
		select {
		case <-w.vpnd.done:
			w.t.Fatalf("vpnd has ended:\n%s", w.vpnd.log)
		default:
		}
		if !strings.Contains(w.vpnd.log.String(), "is ready") {
			return fmt.Errorf("not yet")
		}
		return nil
	})
}

func (w *world) vpndArgs(more ...string) []string {
	// Each world is a host, so its vpnd has a /run/vpnd of its own.
	limit := ""
	if w.files > 0 {
		limit = fmt.Sprintf("ulimit -n %d && ", w.files)
	}
	args := []string{"sh", "-c", limit + `mkdir -p /run/vpnd && mount --bind "$0" /run/vpnd && ` + w.asUser() + ` "$@"`, w.path("run"), w.program(),
		"--data", w.path("data"), "--sealing-key", w.sealingKey(),
		"--control", w.path("run/control.sock"), "--whois-group", fmt.Sprint(nobody),
		"--plane", w.plane, "--interface", w.iface,
		"--endpoint", gwPublic4 + ":51820", "--network", network, "--routes", routes,
		"--app", w.path("app/app.sock"),
	}
	return slices.Concat(args, w.args, w.logs, more)
}

// asUser is the shell's command that runs another as w.user, with the capabilities that the
// unit gives, and its group for whois. The TUN device is one of the world's own, so that its mode
// is known. What vpnd writes is its user's; the folder above stays root's, as the app refuses one
// that is another's.
func (w *world) asUser() string {
	if w.user == 0 {
		return "exec"
	}
	const caps = "-all,+net_admin,+net_bind_service,+net_raw"
	mode := w.tun
	if mode == "" {
		mode = "0666"
	}
	return fmt.Sprintf(`chown %[1]d:%[1]d %[3]s && install -d -o %[1]d -g %[1]d -m 0700 %[2]s/data %[2]s/key && rm -f %[2]s/tun && mknod -m %[4]s %[2]s/tun c 10 200 && mount --bind %[2]s/tun /dev/net/tun &&
exec setpriv --reuid %[1]d --regid %[1]d --groups %[6]d --inh-caps %[5]s --ambient-caps %[5]s --bounding-set %[5]s --`, w.user, w.dir, w.path("run"), mode, caps, nobody)
}

// sealingKey is where vpnd makes its sealing key: in a folder that its user may write to.
func (w *world) sealingKey() string {
	if w.user != 0 {
		return w.path("key/sealing.key")
	}
	return w.path("sealing.key")
}

// program is vpnd where its user may run it.
func (w *world) program() string {
	if w.user != 0 {
		return readable("vpnd")
	}
	return binary("vpnd")
}

// startApp starts the protected app as nobody, as a service manager would.
func (w *world) startApp() {
	w.t.Helper()
	args := []string{"setpriv", "--reuid", fmt.Sprint(nobody), "--regid", fmt.Sprint(nobody), "--clear-groups", "--",
		readable("protected-app"), "--whois", w.path("run/whois.sock"), "--data", w.path("app/files")}
	args = append(args, w.logs...)
	if w.plane == "linux" {
		args = append(args, "--interface", w.iface)
	} else {
		args = append(args, "--socket", w.path("app/app.sock"))
	}
	w.app = w.gw.start(nil, args...)
	eventually(w.t, 10*time.Second, "the app answers", func() error {
		if !strings.Contains(w.app.log.String(), "answering") {
			return fmt.Errorf("not yet: %s", w.app.log)
		}
		return nil
	})
}

// vpnctl runs vpnctl on the gateway and gives its output.
func (w *world) vpnctl(args ...string) string {
	w.t.Helper()
	if w.ctl != nil {
		return w.ctl(args...)
	}
	if w.machine != nil {
		return w.machine.run(append([]string{"vpnctl"}, args...)...)
	}
	return w.gw.run(append([]string{binary("vpnctl"), "--socket", w.path("run/control.sock")}, args...)...)
}

// vpnctlJSON runs vpnctl with -o json and decodes its answer.
func (w *world) vpnctlJSON(v any, args ...string) {
	w.t.Helper()
	out := w.vpnctl(append(args, "-o", "json")...)
	if err := json.Unmarshal([]byte(out), v); err != nil {
		w.t.Fatalf("vpnctl %s: %v in %s", strings.Join(args, " "), err, out)
	}
}

// policy applies a policy.
func (w *world) policy(text string) {
	w.t.Helper()
	path := w.path("policy.hujson")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		w.t.Fatal(err)
	}
	w.vpnctl("policy", "apply", path)
}

// kill9 kills vpnd as a crash would.
func (w *world) kill9() { w.t.Helper(); w.vpnd.stop(w.t, syscall.SIGKILL) }
