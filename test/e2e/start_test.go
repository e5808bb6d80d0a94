package e2e

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// refusal is a start that must fail, before anything on the host is changed.
type refusal struct {
	name   string
	before func(r *refused)  // makes what is wrong
	as     []string          // a command in front of vpnd, such as setpriv
	args   []string          // more arguments, the last of a flag counts
	code   int               // exit code, 1 unless given
	says   []string          // what the line must name: the thing and the remedy
	files  map[string]string // written first, by path in the world's folder
}

// refused is a world in which vpnd has run once, with linux's plane.
type refused struct {
	*world
	t *testing.T
}

const stranger = "1234" // a uid without rights

var asStranger = []string{"setpriv", "--reuid", stranger, "--regid", stranger, "--clear-groups", "--"}

// Everything that can be wrong at a start: vpnd ends with another status than 0, says in
// one line what and what to do, and has changed nothing on the host.
func TestRefusesToStart(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "linux")
	r := &refused{world: w, t: t}
	other := r.copyOf("other") // a first start elsewhere: a data folder and a key of its own
	w.startVpnd()
	w.vpnd.stop(t, syscall.SIGTERM)

	for _, c := range []refusal{
		{name: "TCP port in use", before: func(r *refused) { r.occupy("-l", "8443") },
			says: []string{"8443", "in use", "--portal"}},
		{name: "UDP port in use", before: func(r *refused) { r.occupy("-lu", "51820") },
			says: []string{"51820", "--wireguard"}},
		{name: "UDP port in use, netstack", before: func(r *refused) { r.occupy("-lu", "51820") },
			args: []string{"--plane", "netstack"}, says: []string{"51820", "--wireguard"}},
		{name: "folder of another node", before: func(r *refused) { r.copyFile(filepath.Join(other, "data/raft/node-id"), r.path("data/raft/node-id")) },
			says: []string{"node", "data"}},
		{name: "sealing key of another node", args: []string{"--sealing-key", filepath.Join(other, "sealing.key")},
			says: []string{"sealing key"}},
		{name: "folder in use", before: func(r *refused) {
			r.startVpnd("--plane", "netstack", "--wireguard", ":51999", "--portal", ":8999", "--control", r.path("run2/control.sock"))
		}, says: []string{"in use", "data", "stop it"}},
		{name: "folder of another user", as: asStranger, args: []string{"--plane", "netstack"},
			says: []string{"data", "permission denied"}},
		{name: "unreadable sealing key", as: asStranger, before: func(r *refused) { r.give("data") },
			args: []string{"--plane", "netstack", "--control", "/var/lib/nowhere/control.sock"}, says: []string{"sealing.key", "permission denied"}},
		{name: "unreadable certificate", as: asStranger, files: map[string]string{"tls.crt": "x", "tls.key": "x"},
			before: func(r *refused) {
				r.give("data")
				r.give("sealing.key")
				if err := os.Chmod(r.path("tls.crt"), 0o600); err != nil {
					r.t.Fatal(err)
				}
			}, args: []string{"--plane", "netstack", "--cert", w.path("tls.crt"), "--key", w.path("tls.key")},
			says: []string{"tls.crt", "permission denied"}},
		{name: "certificate that is none", files: map[string]string{"tls.crt": "x", "tls.key": "x"},
			args: []string{"--cert", w.path("tls.crt"), "--key", w.path("tls.key")}, says: []string{"tls.crt", "--cert"}},
		{name: "unreadable config", as: asStranger, files: map[string]string{"vpnd.toml": ""}, before: func(r *refused) {
			if err := os.Chmod(r.path("vpnd.toml"), 0o600); err != nil {
				r.t.Fatal(err)
			}
		}, args: []string{"--config", w.path("vpnd.toml")}, code: 2, says: []string{"vpnd.toml", "permission denied"}},
		{name: "no right to the linux plane", as: asStranger, before: func(r *refused) { r.give("data"); r.give("sealing.key") },
			says: []string{"CAP_NET_ADMIN", "--plane netstack"}},
		{name: "root without the capability", as: []string{"setpriv", "--bounding-set", "-net_admin", "--inh-caps", "-net_admin", "--"},
			says: []string{"CAP_NET_ADMIN", "--plane netstack"}},
		{name: "colliding route", before: func(r *refused) { r.during("ip", "route", "add", "10.77.5.0/24", "via", "192.0.2.9") },
			says: []string{"10.77.0.0/16", "10.77.5.0/24", "--network"}},
		{name: "colliding route of IPv6", before: func(r *refused) { r.during("ip", "-6", "route", "add", "fd77::/48", "dev", "eth0") },
			says: []string{"fd77::/64", "fd77::/48", "--network"}},
		{name: "interface of somebody else", before: func(r *refused) { r.during("ip", "link", "add", w.iface, "type", "bridge") },
			says: []string{w.iface, "--interface"}},
		{name: "sealing key missing", before: func(r *refused) { r.hide("sealing.key") },
			says: []string{"sealing.key", "put the file back"}},
		{name: "sealing key open to others", before: func(r *refused) { r.mode("sealing.key", 0o644) },
			says: []string{"sealing.key", "chmod 600"}},
		{name: "sealing key damaged", files: map[string]string{"damaged.key": "hello\n"},
			args: []string{"--sealing-key", w.path("damaged.key")}, says: []string{"damaged.key", "put it back"}},
		{name: "data folder open to others", before: func(r *refused) { r.mode("data", 0o777) }, says: []string{"data", "chmod go-w"}},
		{name: "data folder of somebody", before: func(r *refused) { r.own("data") }, says: []string{w.path("data"), "uid " + stranger, "mode 0700", "chown root"}},
		{name: "file of somebody in the data folder", before: func(r *refused) { r.own("data/raft/node-id") }, says: []string{"data/raft/node-id", "uid " + stranger, "chown root"}},
		{name: "sealing key of somebody", before: func(r *refused) { r.own("sealing.key") }, says: []string{"sealing.key", "uid " + stranger, "mode 0600", "chown root"}},
		{name: "folder above open to others", before: func(r *refused) { r.mode("", 0o777) }, says: []string{"the folder above", "mode 0777", "chmod go-w " + w.path("")}},
		{name: "folder of the sockets open to others", before: func(r *refused) { r.mode("run", 0o777) }, says: []string{"the socket", "mode 0777", "chmod go-w " + w.path("run")}},
		{name: "folder of the sockets of somebody", before: func(r *refused) { r.own("run") }, says: []string{"the socket", "uid " + stranger, "chown root " + w.path("run")}},
		{name: "certificate's key of somebody", files: map[string]string{"tls.crt": "x", "tls.key": "x"}, before: func(r *refused) { r.own("tls.key") },
			args: []string{"--cert", w.path("tls.crt"), "--key", w.path("tls.key")}, says: []string{"tls.key", "uid " + stranger, "chown root"}},
		{name: "certificate's key open to others", files: map[string]string{"tls.crt": "x", "tls.key": "x"}, before: func(r *refused) { r.mode("tls.key", 0o644) },
			args: []string{"--cert", w.path("tls.crt"), "--key", w.path("tls.key")}, says: []string{"tls.key", "mode 0644", "chmod 600"}},
		{name: "config that others write", files: map[string]string{"open.toml": ""}, before: func(r *refused) { r.mode("open.toml", 0o666) },
			args: []string{"--config", w.path("open.toml")}, code: 2, says: []string{"open.toml", "mode 0666", "chmod go=r"}},
		{name: "data is a file", files: map[string]string{"file": ""}, args: []string{"--data", w.path("file")}, says: []string{w.path("file")}},
		{name: "log is damaged", before: func(r *refused) { r.hide("data/raft/wal-meta.db") }, says: []string{"data", "backup"}},
		{name: "another network than the state's", args: []string{"--network", "10.99.0.0/16,fd99::/64"}, says: []string{"10.99.0.0/16", "10.77.0.0/16", "--network"}},

		{name: "unknown flag", args: []string{"--bogus"}, code: 2, says: []string{"--bogus", "--help"}},
		{name: "stray argument", args: []string{"now"}, code: 2, says: []string{"now", "--help"}},
		{name: "unknown plane", args: []string{"--plane", "jumbo"}, code: 2, says: []string{"--plane", "linux", "netstack"}},
		{name: "network that is none", args: []string{"--network", "10.77.0.0/33"}, code: 2, says: []string{"--network", "10.77.0.0/33"}},
		{name: "network with host bits", args: []string{"--network", "10.77.0.1/16"}, code: 2, says: []string{"--network", "10.77.0.0/16"}},
		{name: "port that is none", args: []string{"--wireguard", ":99999"}, code: 2, says: []string{"--wireguard", "99999"}},
		{name: "portal without a port", args: []string{"--portal", "localhost"}, code: 2, says: []string{"--portal", "localhost"}},
		{name: "endpoint with a newline", args: []string{"--endpoint", "a\nb:1"}, code: 2, says: []string{"--endpoint"}},
		{name: "url that is none", args: []string{"--url", "ftp://x"}, code: 2, says: []string{"--url", "https"}},
		{name: "interface that is none", args: []string{"--interface", "a/b"}, code: 2, says: []string{"--interface", "a/b"}},
		{name: "certificate without key", args: []string{"--cert", "x"}, code: 2, says: []string{"--cert", "--key"}},
		{name: "app port out of range", args: []string{"--app-port", "70000"}, code: 2, says: []string{"--app-port"}},
		{name: "no such config", args: []string{"--config", "/nowhere.toml"}, code: 2, says: []string{"/nowhere.toml", "no such file"}},
		{name: "config with a typo", files: map[string]string{"typo.toml": "interfcae = \"x\"\n"}, args: []string{"--config", w.path("typo.toml")},
			code: 2, says: []string{"typo.toml", "interfcae", "--help"}},
		{name: "config that is no TOML", files: map[string]string{"bad.toml": "data = \n"}, args: []string{"--config", w.path("bad.toml")},
			code: 2, says: []string{"bad.toml", "line 1"}},
		{name: "config with a bad value", files: map[string]string{"value.toml": "app-port = \"many\"\n"}, args: []string{"--config", w.path("value.toml")},
			code: 2, says: []string{"app-port", "many"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := &refused{world: w, t: t}
			r.mustRefuse(c)
		})
	}
	// After all of that the state is as good as before.
	w.startVpnd()
}

func (r *refused) mustRefuse(c refusal) {
	t := r.t
	for name, text := range c.files {
		if err := os.WriteFile(r.path(name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(r.path(name), 0o644); err != nil {
			t.Fatal(err)
		}
		if strings.HasSuffix(name, ".key") {
			if err := os.Chmod(r.path(name), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	if c.before != nil {
		c.before(r)
	}
	args := r.vpndArgs(c.args...)
	args = slices.Concat(args[:4], c.as, args[4:])
	args[slices.Index(args, binary("vpnd"))] = readable("vpnd")
	host := r.hostState()
	ctx, cancel := context.WithTimeout(t.Context(), 15*time.Second*slow)
	defer cancel()
	out, err := exec.CommandContext(ctx, "ip", append([]string{"netns", "exec", r.gw.name}, args...)...).CombinedOutput()
	line := strings.TrimSpace(string(out))
	t.Log(line)
	code := 0
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		code = exit.ExitCode()
	} else if err != nil {
		t.Fatal(err)
	}
	if want := max(c.code, 1); code != want {
		t.Errorf("exit code %d, want %d", code, want)
	}
	if strings.Contains(line, "\n") || !strings.HasPrefix(line, "vpnd: ") {
		t.Errorf("not one line of vpnd's:\n%s", out)
	}
	for _, s := range c.says {
		if !strings.Contains(line, s) {
			t.Errorf("it does not say %q", s)
		}
	}
	if after := r.hostState(); after != host {
		t.Errorf("the host was changed:\n%s", changes(host, after))
	}
}

// hostState is all of a host's network that vpnd could change.
func (w *world) hostState() string {
	w.t.Helper()
	return w.gw.run("sh", "-c", `nft list ruleset; ip rule; ip -6 rule; ip -o addr | grep -v fe80 | sed 's/valid_lft.*//'; ip -o link | sed 's/ qlen.*//';
		ip route show table all | grep -v -e fe80 -e ff00;  ip -6 route show table all | grep -v -e fe80 -e ff00 | sed 's/expires [0-9]*sec//';
		grep -rs . /proc/sys/net/ipv4/conf /proc/sys/net/ipv6/conf /proc/sys/net/ipv4/ip_forward /proc/sys/net/netfilter/nf_conntrack_tcp_loose;
		ls /etc/vpnd; ls /run/wireguard | grep -x `+w.iface+`.sock; true`)
}

// changes are the lines that are in one text only.
func changes(before, after string) string {
	var b strings.Builder
	for sign, pair := range map[string][2]string{"-": {before, after}, "+": {after, before}} {
		for line := range strings.Lines(pair[0]) {
			if !strings.Contains(pair[1], line) {
				b.WriteString(sign + line)
			}
		}
	}
	return b.String()
}

// copyOf starts vpnd for the first time with a folder of its own, and gives that.
func (r *refused) copyOf(name string) string {
	dir := r.path(name)
	if err := os.Mkdir(dir, 0o755); err != nil {
		r.t.Fatal(err)
	}
	r.startVpnd("--plane", "netstack", "--data", filepath.Join(dir, "data"), "--sealing-key", filepath.Join(dir, "sealing.key"))
	r.vpnd.stop(r.t, syscall.SIGTERM)
	return dir
}

// The helpers below undo what they did when the case ends.

// occupy takes a port with netcat.
func (r *refused) occupy(how, port string) {
	r.t.Helper()
	(&host{t: r.t, name: r.gw.name}).start(nil, "nc", how, port)
	proto := "-tln"
	if strings.Contains(how, "u") {
		proto = "-uln"
	}
	eventually(r.t, 5*time.Second, "netcat listens", func() error {
		if out, err := r.gw.try("ss", proto); err != nil || !strings.Contains(out, ":"+port) {
			return fmt.Errorf("%v %s", err, out)
		}
		return nil
	})
}

// during runs "… add …" now and "… del …" afterwards.
func (r *refused) during(args ...string) {
	r.t.Helper()
	r.gw.run(args...)
	undo := slices.Clone(args)
	undo[slices.Index(undo, "add")] = "del"
	r.t.Cleanup(func() { r.gw.try(undo...) })
}

// startVpnd runs one until the case ends.
func (r *refused) startVpnd(more ...string) {
	r.t.Helper()
	w := *r.world
	w.t, w.gw = r.t, &host{t: r.t, name: r.gw.name}
	w.startVpnd(more...)
	r.vpnd = w.vpnd
}

func (r *refused) copyFile(from, to string) {
	r.t.Helper()
	was, err := os.ReadFile(to)
	if err != nil {
		r.t.Fatal(err)
	}
	b, err := os.ReadFile(from)
	if err == nil {
		err = os.WriteFile(to, b, 0o600)
	}
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { os.WriteFile(to, was, 0o600) })
}

func (r *refused) hide(name string) {
	r.t.Helper()
	path := r.path(name)
	if err := os.Rename(path, path+".away"); err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() {
		if err := errors.Join(os.RemoveAll(path), os.Rename(path+".away", path)); err != nil {
			r.t.Error(err)
		}
	})
}

func (r *refused) mode(name string, m os.FileMode) {
	r.t.Helper()
	info, err := os.Stat(r.path(name))
	if err == nil {
		err = os.Chmod(r.path(name), m)
	}
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { os.Chmod(r.path(name), info.Mode().Perm()) })
}

// own makes the stranger own a file or folder, and nothing in it.
func (r *refused) own(name string) {
	r.t.Helper()
	must(r.t, "chown", stranger, r.path(name))
	r.t.Cleanup(func() { must(r.t, "chown", "0", r.path(name)) })
}

// give makes a file or folder the stranger's.
func (r *refused) give(name string) {
	r.t.Helper()
	must(r.t, "chown", "-R", stranger+":"+stranger, r.path(name), r.path("run"))
	r.t.Cleanup(func() { must(r.t, "chown", "-R", "0:0", r.path(name), r.path("run")) })
}
