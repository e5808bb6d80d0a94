package e2e

import (
	"fmt"
	"net"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

const rulesPolicy = `{
  "hosts": {"web": "198.51.100.10", "web6": "2001:db8:2::10"},
  "grants": [
    {"src": ["autogroup:member"], "dst": ["app"], "ip": ["tcp:8080", "icmp"]},
    {"src": ["autogroup:member"], "dst": ["web", "web6"], "ip": ["tcp:80", "tcp:7000", "udp:7000", "icmp"]},
  ],
}`

// talkers are the private network's talker in both families.
var talkers = []string{lan4 + ":7000", "[" + lan6 + "]:7000"}

// The rules that must hold, with real packets: on the linux plane under each rp_filter
// (0 off, 1 strict, 2 loose), and on the netstack plane what is not about the kernel. vpnd runs as
// root and as a user with the unit's three capabilities.
func TestRules(t *testing.T) {
	for _, c := range []struct {
		plane, rp string
		user      int
	}{{"linux", "0", 0}, {"linux", "1", 0}, {"linux", "2", 0}, {"linux", "1", unitUser}, {"netstack", "0", 0}} {
		t.Run(fmt.Sprintf("%s,rp_filter=%s,user=%d", c.plane, c.rp, c.user), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, c.plane)
			w.user = c.user
			for _, name := range []string{"all", "default", "eth0", "eth1"} {
				w.gw.run("sysctl", "-qw", "net.ipv4.conf."+name+".rp_filter="+c.rp)
			}
			w.others()
			rules(t, w)
		})
	}
}

// others loads a firewall of somebody else's, which must stay as it is.
func (w *world) others() {
	w.t.Helper()
	if out, err := w.gw.tryInput(`
table inet filter {
	set admins { type ipv4_addr; flags interval; elements = { 203.0.113.0/24 }; }
	chain input { type filter hook input priority filter; policy accept; ip saddr @admins tcp dport 22 accept; }
	chain forward { type filter hook forward priority filter; policy accept; ct state established,related accept; }
}
table ip nat {
	chain post { type nat hook postrouting priority srcnat; policy accept; ip saddr 203.0.113.0/24 masquerade; }
}
`, "nft", "-f", "-"); err != nil {
		w.t.Fatalf("%v %s", err, out)
	}
}

func rules(t *testing.T, w *world) {
	w.web("80", "9090")
	before := w.hostFirewall()
	w.startVpnd()
	w.startApp()
	w.policy(rulesPolicy)
	alice, bob, outsider := w.person("alice", "phone"), w.person("bob", "laptop"), w.public("outside")
	linux := w.plane == "linux"

	closedTo := func(c *host, what string, more ...string) {
		t.Helper()
		var wg sync.WaitGroup
		defer wg.Wait()
		for _, a := range talkers {
			for _, network := range []string{"tcp", "udp"} {
				wg.Go(func() {
					if s, err := openStream(t, c, network, a); err == nil {
						t.Errorf("%s: %s is open", what, s.name)
						s.close()
					}
				})
			}
		}
		for _, a := range append([]string{lan4, lan6}, more...) {
			wg.Go(func() {
				if out, err := c.try("ping", "-c", "1", "-W", "1", a); err == nil {
					t.Errorf("%s: ping %s: %s", what, a, out)
				}
			})
		}
	}

	t.Log("before signing in nothing but the sign-in page answers")
	closedTo(alice.host, "before signing in", tunnel6)
	alice.signIn()
	bob.signIn()

	t.Log("what the policy grants is open, by TCP, UDP and ICMP, in both families")
	var streams []*stream
	for _, a := range talkers {
		streams = append(streams, mustStream(t, alice.host, "tcp", a), mustStream(t, alice.host, "udp", a))
	}
	pings := []string{tunnel4, tunnel6}
	if linux { // netstack needs the host's leave to ping on (ping_group_range)
		pings = append(pings, lan4, lan6)
	}
	for _, a := range pings {
		if _, err := alice.try("ping", "-c", "1", "-W", "2", a); err != nil {
			t.Errorf("granted ping: %v", err)
		}
	}

	t.Log("what it does not grant is refused at once, not left to hang")
	for _, url := range []string{"http://" + lan4 + ":9090/", "http://[" + lan6 + "]:9090/"} {
		start := time.Now()
		if _, body, _, err := alice.get(url); err == nil {
			t.Errorf("%s answered %q", url, body)
		} else if took := time.Since(start); took > 3*time.Second*slow {
			t.Errorf("%s was refused after %v only", url, took)
		}
	}

	t.Log("devices do not reach each other")
	for _, a := range []string{bob.addr4, bob.addr6} {
		if out, err := alice.try("ping", "-c", "1", "-W", "1", a); err == nil {
			t.Errorf("alice pings bob: %s", out)
		}
	}

	t.Log("an inner source that is another's is dropped")
	stop := w.count("icmp or icmp6 and (icmp6[0] == 128)")
	alice.host.addr(alice.iface, bob.addr4+"/32")
	alice.host.addr(alice.iface, bob.addr6+"/128")
	alice.try("ping", "-c", "3", "-i", "0.2", "-W", "1", "-I", bob.addr4, lan4)
	alice.try("ping", "-c", "3", "-i", "0.2", "-W", "1", "-I", bob.addr6, lan6)
	if n := stop(); n > 0 {
		t.Errorf("%d packets with bob's source came from alice", n)
	}
	alice.run("ip", "addr", "del", bob.addr4+"/32", "dev", alice.iface)
	alice.run("ip", "addr", "del", bob.addr6+"/128", "dev", alice.iface)

	t.Log("a tunnel address is answered in the tunnel alone: not to an outsider who knows it, not to the private network, not to the host itself")
	outsider.run("ip", "route", "add", "10.77.0.0/16", "via", gwPublic4)
	outsider.run("ip", "route", "add", "fd77::/64", "via", gwPublic6)
	outsider.run("ip", "route", "add", "198.51.100.0/24", "via", gwPublic4)
	outsider.run("ip", "route", "add", "2001:db8:2::/64", "via", gwPublic6)
	w.lan.run("ip", "route", "add", "10.77.0.0/16", "via", "198.51.100.1")
	w.lan.run("ip", "route", "add", "fd77::/64", "via", "2001:db8:2::1")
	for name, h := range map[string]*host{"outsider": outsider, "private network": w.lan, "gateway itself": w.gw} {
		for _, url := range []string{"http://" + tunnel4 + "/", app + "/api/whoami", "http://[" + tunnel6 + "]/", "http://[" + tunnel6 + "]:8080/api/whoami"} {
			if out, err := h.try("curl", "-sS", "--max-time", "1", url); err == nil {
				t.Errorf("%s gets %s: %q", name, url, out)
			}
		}
		if name == "gateway itself" {
			continue // its own addresses answer its own pings
		}
		for _, a := range []string{tunnel4, tunnel6, alice.addr4, alice.addr6} {
			if out, err := h.try("ping", "-c", "1", "-W", "1", a); err == nil {
				t.Errorf("%s pings %s: %s", name, a, out)
			}
		}
	}

	t.Log("a tunnel source address is worth nothing elsewhere")
	stop = w.count("src net 10.77.0.0/16 or src net fd77::/64")
	outsider.addr("lo", alice.addr4+"/32")
	outsider.addr("lo", alice.addr6+"/128")
	outsider.try("ping", "-c", "3", "-i", "0.2", "-W", "1", "-I", alice.addr4, lan4)
	outsider.try("ping", "-c", "3", "-i", "0.2", "-W", "1", "-I", alice.addr6, lan6)
	if out, err := outsider.try("curl", "-sS", "--max-time", "1", "--interface", alice.addr4, app+"/api/whoami"); err == nil {
		t.Errorf("an outsider with alice's address gets %q", out)
	}
	if n := stop(); n > 0 {
		t.Errorf("%d packets with a tunnel source came from outside", n)
	}
	alive(t, streams...)

	t.Log("a revocation cuts every open flow in both directions at once")
	w.vpnctl("session", "end", "alice/phone")
	sent := w.count("dst port 7000") // after the answer: how long that took is not counted
	silent(t, streams...)
	for _, s := range streams {
		if strings.HasPrefix(s.name, "tcp") {
			eventually(t, 5*time.Second, s.name+" is dead for the client, too", func() error {
				if !s.failed.Load() {
					return fmt.Errorf("still open")
				}
				return nil
			})
		}
	}
	if sent() > 60 { // the resets, and what was under way
		t.Error("packets of the cut flows still reached the private network")
	}
	closedTo(alice.host, "after the revocation")
	if s, err := openStream(t, bob.host, "tcp", talkers[0]); err != nil {
		t.Errorf("bob lost his session with alice's: %v", err)
	} else {
		s.close()
	}

	t.Log("a new code opens new flows and revives no dead one")
	for _, s := range streams {
		s.mute.Store(true) // a datagram sent after the new code would begin a new flow
	}
	alice.signIn()
	silent(t, streams...)
	fresh := mustStream(t, alice.host, "udp", talkers[0])
	alive(t, fresh)
	w.vpnctl("device", "disable", "alice/phone")
	silent(t, fresh)
	w.vpnctl("device", "enable", "alice/phone")

	if linux {
		kernelRules(t, w, bob)
	}

	t.Log("a stop leaves the host as it was found")
	if linux {
		w.others() // they were flushed above
	}
	w.vpnd.stop(t, syscall.SIGTERM)
	if after := w.hostFirewall(); after != before {
		t.Errorf("before:\n%s\nafter a stop:\n%s", before, after)
	}
}

// hostFirewall is what must not change: every ruleset, routing rule and forwarding sysctl.
func (w *world) hostFirewall() string {
	w.t.Helper()
	return w.gw.run("sh", "-c", `nft list ruleset; ip rule; ip -6 rule; (ip route show table all; ip -6 route show table all) | grep -v -e vpn -e fe80 -e ff00 | sort
		sysctl -a 2>/dev/null | grep -E '\.(forwarding|ip_forward|rp_filter|src_valid_mark|accept_ra|force_forwarding) ' | grep -v '\.vpn'`)
}

// kernelRules are those about the kernel: what is removed by hand comes back, a flushed
// table closes, and sessions end with vpnd dead.
func kernelRules(t *testing.T, w *world, bob *client) {
	t.Log("what is removed or added by hand is put right within 2 s, and audited")
	flow := mustStream(t, bob.host, "tcp", talkers[0])
	peer := strings.Fields(w.gw.run("wg", "show", w.iface, "allowed-ips"))
	key := ""
	for i, f := range peer {
		if strings.HasPrefix(f, bob.addr4) && i > 0 {
			key = peer[i-1]
		}
	}
	for _, c := range []struct {
		what, see, want string
		do              []string
	}{
		{"a peer", "wg show " + w.iface + " peers", key, []string{"wg", "set", w.iface, "peer", key, "remove"}},
		{"an address", "ip addr show dev " + w.iface, tunnel4, []string{"ip", "addr", "del", tunnel4 + "/16", "dev", w.iface}},
		{"a session", "nft list set inet vpnd session4", bob.addr4, []string{"sh", "-c", "nft flush set inet vpnd session4"}},
		{"a routing rule", "ip rule | sed 's/lookup unspec //'", "iif " + w.iface + " prohibit", []string{"sh", "-c", "ip rule del $(ip rule | sed -n 's/lookup unspec //; s/^\\([0-9]*\\):.*iif " + w.iface + " prohibit.*/pref \\1/p')"}},
		{"the interface", "ip addr show dev " + w.iface, tunnel4, []string{"ip", "link", "del", w.iface}},
	} {
		if out, err := w.gw.try(c.do...); err != nil {
			if c.what == "a session" {
				continue // an owned table refuses other hands altogether
			}
			t.Errorf("removing %s: %v %s", c.what, err, out)
			continue
		}
		eventually(t, 2*time.Second, c.what+" comes back", func() error {
			out, err := w.gw.try("sh", "-c", c.see)
			if err != nil || !strings.Contains(out, c.want) {
				return fmt.Errorf("%s: %v %s", c.see, err, tail(out, 300))
			}
			return nil
		})
	}
	eventually(t, 5*time.Second, "it is audited", func() error {
		if out := w.vpnctl("audit"); strings.Count(out, "put right")+strings.Count(out, "drift") < 3 {
			return fmt.Errorf("the audit log says\n%s", out)
		}
		return nil
	})
	flow.close()
	bob.shakeHands() // the interface was made anew

	t.Log("not one packet is forwarded while the table is gone")
	stop := w.count("udp port 9999")
	for range 5 {
		w.gw.run("nft", "flush", "ruleset") // the others' is gone, too
		bob.run("sh", "-c", "for i in 1 2 3 4 5 6 7 8 9 10; do echo x | nc -u -q 0 -w 1 "+lan4+" 9999; done")
	}
	if n := stop(); n > 0 {
		t.Errorf("%d packets that nothing grants were forwarded", n)
	}
	eventually(t, 10*time.Second, "bob's session is there after the flush", func() error {
		s, err := openStream(t, bob.host, "tcp", talkers[0])
		if err == nil {
			s.close()
		}
		return err
	})

	t.Log("sessions end on time with vpnd killed: the kernel ends them")
	w.vpnctl("settings", "set", "--session", shortSession.String())
	bob.signOut()
	ends := bob.signIn().Expires
	if until := time.Until(ends); until > shortSession+time.Second {
		t.Fatalf("a session of %v ends in %v", shortSession, until)
	}
	live := mustStream(t, bob.host, "udp", talkers[0])
	conf := w.gw.run("wg", "showconf", w.iface)
	firewall := w.ownFirewall()
	w.kill9()
	if after := w.ownFirewall(); after != firewall {
		t.Errorf("kill -9 changed the host's firewall: before\n%s\nafter\n%s", firewall, after)
	}
	w.reviveWireGuard(conf)
	bob.shakeHands()
	eventually(t, 10*time.Second, "the live session passes with vpnd dead", func() error {
		at := live.last.Load()
		time.Sleep(50 * time.Millisecond)
		if live.last.Load() == at {
			return fmt.Errorf("nothing comes")
		}
		return nil
	})
	if time.Now().After(ends) {
		t.Fatal("too slow: the session ended before it could be seen living")
	}
	time.Sleep(time.Until(ends))
	silent(t, live)
	if late := time.Unix(0, live.last.Load()).Sub(ends); late > 500*time.Millisecond {
		t.Errorf("the session passed packets until %v after its end", late)
	}
	if s, err := openStream(t, bob.host, "tcp", talkers[0]); err == nil {
		t.Errorf("with vpnd dead and the session over, %s opens", s.name)
	}
	if w.stand != nil {
		w.stand.stop(t, syscall.SIGTERM)
	}
	w.startVpnd()
	bob.shakeHands()
	live.mute.Store(true)
	if s, err := openStream(t, bob.host, "udp", talkers[0]); err == nil {
		t.Errorf("after the restart %s opens without a code", s.name)
	}
	bob.signIn()
	silent(t, live)
}

// ownFirewall is hostFirewall with our own table and rules, less what runs: time-outs and
// counters.
func (w *world) ownFirewall() string {
	w.t.Helper()
	return w.gw.run("sh", "-c", `nft -s list ruleset | sed 's/ expires [0-9a-z]*//; s/expires [0-9a-z]*//' | grep -v 10.77 | grep -v fd77 | grep -v -e '^#' -e 'table inet vpnd' -e 'flags' ; (ip rule; ip -6 rule) | sed 's/ \[detached\]//'`)
}

// reviveWireGuard brings WireGuard back under the same name with the same keys, since an
// in-process one dies with vpnd: so what is seen to be closed is the filter's work.
func (w *world) reviveWireGuard(conf string) {
	w.t.Helper()
	if _, err := w.gw.try("ip", "link", "show", w.iface); err == nil {
		return // the kernel's lives on
	}
	// A killed vpnd leaves its socket. wg removes one that nobody answers, and so does
	// wireguard-go, which ends when wg was faster: so wg is called when it answers.
	socket := "/var/run/wireguard/" + w.iface + ".sock"
	os.Remove(socket)
	w.stand = w.gw.start([]string{"WG_PROCESS_FOREGROUND=1"}, "wireguard-go", "-f", w.iface)
	eventually(w.t, 10*time.Second, "wireguard-go runs", func() error {
		c, err := net.Dial("unix", socket)
		if err != nil {
			return err
		}
		c.Close()
		_, err = w.gw.tryInput(conf, "wg", "setconf", w.iface, "/dev/stdin")
		return err
	})
	w.gw.run("ip", "link", "set", w.iface, "mtu", "1420", "up")
	w.gw.addr(w.iface, tunnel4+"/16")
	w.gw.addr(w.iface, tunnel6+"/64")
	w.gw.run("sysctl", "-qw", "net.ipv4.conf."+w.iface+".src_valid_mark=1", "net.ipv4.conf."+w.iface+".forwarding=1")
	w.gw.try("sysctl", "-qw", "net.ipv6.conf."+w.iface+".force_forwarding=1")
}
