package e2e

import (
	"strings"
	"syscall"
	"testing"
	"time"
)

// The core of the rules, short enough for the emulated machine of test/kernel: Debian's
// kernel, whose WireGuard is the module and whose nf_tables is older. There it must be
// that WireGuard which is used; elsewhere, whatever the host has.
func TestKernel(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "linux")
	for _, name := range []string{"all", "default", "eth0", "eth1"} {
		w.gw.run("sysctl", "-qw", "net.ipv4.conf."+name+".rp_filter=2") // systemd's default
	}
	w.web("80")
	before := w.hostFirewall()
	w.startVpnd()
	module := w.usesModule()
	if status := w.vpnctl("status"); module != strings.Contains(status, "WireGuard of the kernel on "+w.iface) {
		t.Errorf("WireGuard is the kernel's: %v; vpnctl status says\n%s", module, status)
	}
	found, _ := w.findings()
	if code := map[bool]string{true: "plane_kernel", false: "plane_go"}[module]; found[code] == "" || found["self_test_ok"] == "" {
		t.Errorf("the doctor finds no %s, or its self-test fails: %v", code, found)
	}
	if onOtherKernel && !module {
		t.Fatal("this kernel has the WireGuard module, and vpnd does not use it")
	}
	w.policy(rulesPolicy)
	alice, bob := w.person("alice", "phone"), w.person("bob", "laptop")
	if s, err := openStream(t, alice.host, "tcp", talkers[0]); err == nil {
		t.Fatalf("before signing in %s opens", s.name)
	}
	alice.signIn()
	bob.signIn()

	t.Log("a revocation cuts open flows in both directions at once, and nobody else's")
	var streams []*stream
	for _, a := range talkers {
		streams = append(streams, mustStream(t, alice.host, "tcp", a), mustStream(t, alice.host, "udp", a))
	}
	others := []*stream{mustStream(t, bob.host, "tcp", talkers[0]), mustStream(t, bob.host, "tcp", talkers[1])}
	w.vpnctl("session", "end", "alice/phone")
	silent(t, streams...)
	alive(t, others...)
	for _, s := range streams {
		s.mute.Store(true) // a datagram sent after the new code would begin a new flow
	}
	alice.signIn()
	silent(t, streams...)

	t.Log("a device that is disabled is no peer any more")
	fresh := mustStream(t, alice.host, "udp", talkers[0])
	peers := len(strings.Fields(w.gw.run("wg", "show", w.iface, "peers")))
	w.vpnctl("device", "disable", "alice/phone")
	silent(t, fresh)
	if n := len(strings.Fields(w.gw.run("wg", "show", w.iface, "peers"))); n != peers-1 {
		t.Errorf("%d peers after disabling one of %d", n, peers)
	}

	if module {
		t.Log("killed and started again, vpnd takes up the interface that it left; flows live on while it is dead")
		index := w.gw.run("cat", "/sys/class/net/"+w.iface+"/ifindex")
		w.kill9()
		alive(t, others...)
		w.startVpnd()
		mustStream(t, bob.host, "tcp", talkers[0]).close() // no new code, no new handshake
		if now := w.gw.run("cat", "/sys/class/net/"+w.iface+"/ifindex"); now != index {
			t.Errorf("the interface was number %s and is %s", index, now)
		}
	}
	for _, s := range others {
		s.close()
	}

	kernelRules(t, w, bob)

	t.Log("a stop leaves the host as it was found")
	w.vpnd.stop(t, syscall.SIGTERM)
	if after := w.hostFirewall(); after != before {
		t.Errorf("before:\n%s\nafter a stop:\n%s", before, after)
	}
	if out, err := w.gw.try("ip", "link", "show", w.iface); err == nil {
		t.Errorf("the interface is still there: %s", out)
	}
}

// usesModule says whether vpnd's interface is the kernel's WireGuard, by what ip says.
func (w *world) usesModule() bool {
	w.t.Helper()
	return strings.Contains(w.gw.run("ip", "-d", "link", "show", w.iface), "\n    wireguard ")
}

// shortSession is long enough to kill vpnd within it.
var shortSession = 20 * time.Second * min(slow, 3)
