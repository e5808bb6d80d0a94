package e2e

import (
	"slices"
	"strings"
	"testing"

	"vpnd/internal/doctor"
)

// findings are made on a gateway's host, one after the other; each is taken back. Commands are
// the shell's, with VPNCTL and IFACE.
var findings = []struct {
	code, says string
	make, undo string
}{
	{"mtu_large", "way out by eth0 carries (1340)", "$VPNCTL settings set --mtu 1420 && ip link set eth0 mtu 1420", "ip link set eth0 mtu 1500 && $VPNCTL settings set --mtu auto"},
	{"forwarding_off", "does not forward from eth1", "sysctl -wq net.ipv4.conf.eth1.forwarding=0", "sysctl -wq net.ipv4.conf.eth1.forwarding=1"},
	{"rp_filter_drops", "rp_filter on eth1 drops", "sysctl -wq net.ipv4.conf.eth1.rp_filter=1 net.ipv4.conf.eth1.src_valid_mark=0", "sysctl -wq net.ipv4.conf.eth1.rp_filter=0"},
	{"rp_filter_strict", "default routes by eth0, eth1",
		"ip route add default via 192.0.2.254 dev eth0 metric 100 && ip route add default via 198.51.100.254 dev eth1 metric 200 && sysctl -wq net.ipv4.conf.eth0.rp_filter=1",
		"ip route del default dev eth0; ip route del default dev eth1; sysctl -wq net.ipv4.conf.eth0.rp_filter=0"},
	{"network_taken", "10.77.200.0/24", "ip link add other0 type bridge && ip address add 10.77.200.1/24 dev other0 && ip link set other0 up", "ip link del other0"},
	// In the shape that Docker gives them; its own chains are cut to what matters here.
	{"firewall_drops", "chain FORWARD (policy drop) drops what comes from", `nft -f - <<'X'
table ip filter {
	chain FORWARD { type filter hook forward priority filter; policy drop; jump DOCKER-USER; oifname "docker0" ct state related,established accept; iifname "docker0" oifname != "docker0" accept; }
	chain DOCKER-USER { return; }
}
X`, "nft delete table ip filter"},
	{"host_silent", "198.51.100.77:22", `cat > /run/doctor.policy <<'X' && $VPNCTL policy apply /run/doctor.policy
{"grants": [{"src": ["alice"], "dst": ["198.51.100.77"], "ip": ["tcp:22"]}]}
X`, "true"},
	{"self_test_page", "no page", `nft "add table inet other; add chain inet other input { type filter hook input priority 0; }; add rule inet other input iifname $IFACE meta l4proto tcp drop"`, "nft delete table inet other"},
	{"self_test_handshake", "no handshake", `nft "add table inet other; add chain inet other input { type filter hook input priority 0; }; add rule inet other input iif lo udp dport 51820 drop"`, "nft delete table inet other"},
	{"files_wrong", "data", "chmod 777 $DATA", "chmod 700 $DATA"},
}

// elsewhere says of every other finding where it is made, or why no host can be brought to it.
var elsewhere = map[string]string{
	"grant_idle": "TestDoctor", "grant_unrouted": "TestDoctor", "host_closed": "TestDoctor", "outside_seen": "TestDoctor",
	"outside_unknown": "TestDoctor", "vpnd_down": "TestDoctor", "plane_go": "TestDoctor", "plane_netstack": "TestDoctor",
	"self_test_ok": "TestDoctor", "firewall_open": "TestDoctor", "endpoint_ok": "TestDoctor", "forwarding_ok": "TestDoctor",
	"rp_filter_ok": "TestDoctor", "mtu_ok": "TestDoctor", "network_ok": "TestDoctor", "port_ok": "TestDoctor",
	"certificate_ok": "TestDoctor", "disk_ok": "TestDoctor", "files_ok": "TestDoctor", "grants_ok": "TestDoctor",
	"certificate_refused": "TestACME, at an authority that refuses",

	"plane_kernel": "needs a kernel with WireGuard: the machine of TestKernel",
	"plane_down":   "internal/doctor: vpnd ends when its plane does",
	"plane_behind": "internal/doctor, on a real state: a plane catches up within milliseconds or is tried again for ever",
	"leader_none":  "internal/doctor: a node that is alone leads whenever it runs",

	"policy_ignored":    "internal/doctor, by a real stored policy: none is accepted any more that a later vpnd refuses",
	"key_spelling":      "internal/doctor, on a real state of level 1: no vpnd of today writes one",
	"clock_ok":          "internal/doctor: by an injected adjtimex, since a namespace has no clock of its own",
	"clock_free":        "internal/doctor: by an injected adjtimex",
	"clock_unseen":      "internal/doctor: by an injected adjtimex",
	"clock_behind":      "internal/doctor, on a real state whose time lies ahead: the host's clock is not the test's to set",
	"routes_unseen":     "nowhere: the kernel answers netlink to everybody",
	"mtu_unseen":        "nowhere: the kernel answers netlink to everybody",
	"self_test_unknown": "internal/doctor: where nobody leads",
	"firewall_unread":   "internal/doctor; the rules of others are read or not by privilege alone",

	"endpoint_none":    "internal/doctor: vpnd finds one at its first start and always keeps one",
	"endpoint_private": athome, "endpoint_local": athome, "endpoint_unnamed": athome,
	"endpoint_other": athome, "endpoint_nat": athome, "endpoint_port": athome,
	"network_home": athome, "route_home": athome,
	"port_shared": "internal/doctor, with real sockets: one that has the port alone keeps others out", "port_closed": "internal/doctor, with real sockets",
	"wgconf_port": "internal/doctor, with real files", "wgconf_net": "internal/doctor, with real files",
	"certificate_ended": "internal/doctor, with real certificates", "certificate_ends": "internal/doctor, with real certificates",
	"certificate_soon": "internal/doctor, with real certificates", "certificate_other": "internal/doctor, with real certificates",
	"certificate_none": "internal/doctor: vpnd does not start without one",
	"disk_full":        "internal/doctor, at a file system without room: each command of a namespace has mounts of its own",
	"disk_slow":        "internal/doctor: by an injected sync", "disk_broken": "internal/doctor, in a real folder that takes no files",
	"files_other": "internal/doctor", "host_ok": "internal/doctor, with real listeners", "hosts_many": "internal/doctor, with real connects",
	"vpnd_denied": "internal/doctor", "vpnd_log": "internal/doctor, with a real file", "vpnd_port": "internal/doctor, with real sockets",
}

// Every finding is made somewhere.
func TestDoctorKnowsWhere(t *testing.T) {
	for _, c := range doctor.Codes() {
		_, there := elsewhere[c]
		here := slices.ContainsFunc(findings, func(f struct{ code, says, make, undo string }) bool { return f.code == c })
		if there == here {
			t.Errorf("%s: made here %v, elsewhere %v", c, here, there)
		}
	}
	if n := len(doctor.Codes()); n != len(elsewhere)+len(findings) {
		t.Errorf("%d findings, %d are named", n, len(elsewhere)+len(findings))
	}
}

// Each is found on a host that has it, and not before.
func TestDoctorFindings(t *testing.T) {
	w := newWorld(t, "linux")
	w.startVpnd()
	w.person("alice", "phone")
	sh := func(text string) {
		t.Helper()
		w.gw.run("sh", "-c", "VPNCTL='"+binary("vpnctl")+" --socket "+w.path("run/control.sock")+"' IFACE="+w.iface+" DATA="+w.path("data")+"\n"+text)
	}
	if found, _ := w.findings(); found["self_test_ok"] == "" {
		t.Errorf("at first: %v", found)
	}
	for _, f := range findings {
		if found, _ := w.findings(); found[f.code] != "" {
			t.Errorf("%s is found before it is there: %s", f.code, found[f.code])
		}
		// What vpnd puts right by itself within two seconds may be gone before it is seen.
		for try := range 3 {
			sh(f.make)
			found, content := w.findings()
			sh(f.undo)
			if strings.Contains(found[f.code], f.says) {
				t.Logf("%s: content %v: %s", f.code, content, strings.TrimSpace(found[f.code]))
				break
			}
			if try == 2 {
				t.Errorf("the doctor does not find %s (%q): %v", f.code, f.says, found)
			}
		}
	}
}

const athome = "TestDoctorAtHome"

// A gateway in a home, which has found its endpoint by itself: what clients dial, and networks
// that many homes have.
func TestDoctorAtHome(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "linux")
	for _, dev := range []string{"eth0", "eth1"} {
		w.gw.run("ip", "addr", "flush", "dev", dev, "scope", "global")
	}
	w.gw.run("ip", "addr", "add", "192.168.7.1/24", "dev", "eth0")
	w.gw.run("ip", "route", "add", "default", "via", "192.168.7.254")
	args := w.vpndArgs()
	for _, flag := range []string{"--endpoint", "--routes", "--network"} {
		i := slices.Index(args, flag)
		args = slices.Delete(args, i, i+2)
	}
	w.startWith(append(args, "--network", "192.168.1.0/24"))
	expect := func(says ...string) {
		t.Helper()
		found, _ := w.findings()
		for _, code := range says {
			if found[code] == "" {
				t.Errorf("%s is not found: %v", code, found)
			}
		}
	}
	expect("endpoint_private", "network_home")
	set := func(args ...string) { t.Helper(); w.vpnctl(append([]string{"settings", "set"}, args...)...) }
	set("--endpoint", "192.168.9.9:51820", "--routes", "192.168.2.0/24")
	expect("endpoint_local", "route_home")
	set("--endpoint", "vpn.example.invalid:51820")
	expect("endpoint_unnamed")
	set("--endpoint", "203.0.113.9:51999")
	expect("endpoint_nat", "endpoint_port")
	w.gw.run("ip", "addr", "add", "192.0.2.1/24", "dev", "eth0")
	expect("endpoint_other")
	set("--endpoint", "192.0.2.1:51820")
	expect("endpoint_ok")
}
