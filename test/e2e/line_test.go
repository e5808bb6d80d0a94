package e2e

import (
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"
)

const (
	largeFile = 3_000_000
	hugeFile  = 30_000_000 // for the benchmark
)

// lines is a client behind a router of its own, whose line to it can be made narrow.
//
//	client -- 203.0.113.0/24, 2001:db8:9::/64 -- router -- net -- gw
type lines struct {
	*client
	router *host
}

// behindRouter enrols alice behind a router, signed in, and serves a large file at the
// resource.
func behindRouter(w *world) *lines {
	w.t.Helper()
	dir := w.t.TempDir()
	must(w.t, "truncate", "-s", strconv.Itoa(largeFile), dir+"/large")
	must(w.t, "truncate", "-s", strconv.Itoa(hugeFile), dir+"/huge")
	// timeout(1) ends its children, too: those of stalled connections.
	w.lan.start(nil, "timeout", "600", "busybox", "httpd", "-f", "-p", "[::]:80", "-h", dir)
	r := w.public("router")
	n := strconv.Itoa(w.seen)
	c := newHost(w.t, fmt.Sprintf("far%d", w.id))
	connect(w.t, r, "eth1", c, "eth0")
	for h, p := range map[*host]string{r: "1", c: "2"} {
		dev := map[string]string{"1": "eth1", "2": "eth0"}[p]
		h.addr(dev, "203.0.113."+p+"/24")
		h.addr(dev, "2001:db8:9::"+p+"/64")
	}
	r.run("sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1")
	c.run("ip", "route", "add", "default", "via", "203.0.113.1")
	c.run("ip", "-6", "route", "add", "default", "via", "2001:db8:9::1")
	w.gw.run("ip", "route", "add", "default", "via", "192.0.2."+n)
	w.gw.run("ip", "-6", "route", "add", "default", "via", "2001:db8:1::"+n)

	w.startVpnd()
	w.policy(openPolicy)
	l := &lines{&client{host: c, w: w, user: "alice", device: "far"}, r}
	var added struct {
		Invitation struct{ Link string } `json:"invitation"`
	}
	w.vpnctlJSON(&added, "user", "add", "alice")
	l.enrol(added.Invitation.Link)
	l.up()
	l.answers(w.t)
	l.signIn()
	return l
}

// set gives the client's line an MTU at both ends.
func (l *lines) set(mtu int) {
	l.t.Helper()
	l.router.run("ip", "link", "set", "eth1", "mtu", strconv.Itoa(mtu))
	l.run("ip", "link", "set", "eth0", "mtu", strconv.Itoa(mtu))
	// What a path carried is remembered for ten minutes.
	for _, h := range []*host{l.w.gw, l.router, l.host} {
		h.run("ip", "route", "flush", "cache")
		h.run("ip", "-6", "route", "flush", "cache")
	}
}

// dial lets the tunnel go to an address of the gateway's.
func (l *lines) dial(gateway string) {
	l.t.Helper()
	key := strings.TrimSpace(l.run("wg", "show", l.iface, "peers"))
	if strings.Contains(gateway, ":") {
		gateway = "[" + gateway + "]"
	}
	l.run("wg", "set", l.iface, "peer", key, "endpoint", gateway+":51820")
	l.answers(l.t)
}

// load takes the large file by IPv4 and IPv6 inside, in at most 15 s each.
func (l *lines) load() string {
	var got []string
	for _, host := range []string{lan4, "[" + lan6 + "]"} {
		out, _ := l.try("curl", "-s", "-g", "-o", "/dev/null", "--max-time", "15", "-w", "%{size_download}", "http://"+host+"/large")
		got = append(got, out)
	}
	return strings.Join(got, " ")
}

var wholeFile = fmt.Sprintf("%d %d", largeFile, largeFile)

// Whatever a client's line and the gateway's own carry, a download comes whole, by both
// families outside and inside; and where a path swallows what would tell of it, a smaller
// MTU by hand cures it.
func TestNarrowLines(t *testing.T) {
	both(t, func(t *testing.T, w *world) {
		l := behindRouter(w)
		check := func(what string) {
			t.Helper()
			for _, gateway := range []string{gwPublic4, gwPublic6} {
				l.dial(gateway)
				if got := l.load(); got != wholeFile {
					t.Errorf("%s, by %s: %s bytes came by IPv4 and IPv6", what, gateway, got)
				}
			}
		}
		for _, mtu := range []int{1280, 1400, 1460} {
			l.set(mtu)
			check(fmt.Sprintf("a client's line of %d bytes", mtu))
		}
		l.set(1500)

		for _, x := range []struct{ line, tunnel int }{{1280, 1280}, {1400, 1320}, {9001, 1420}} {
			for _, e := range []struct{ h, dev string }{{w.gw.name, "eth0"}, {w.net.name, "p1"}} {
				must(t, "ip", "-n", e.h, "link", "set", e.dev, "mtu", strconv.Itoa(x.line))
			}
			eventually(t, 10*time.Second, "the tunnel follows the gateway's line", func() error {
				if s := w.vpnctl("status"); !strings.Contains(s, fmt.Sprintf("MTU %d", x.tunnel)) {
					return fmt.Errorf("a line of %d: %s", x.line, s)
				}
				return nil
			})
			check(fmt.Sprintf("the gateway's own line of %d bytes", x.line))
		}
		for _, e := range []struct{ h, dev string }{{w.gw.name, "eth0"}, {w.net.name, "p1"}} {
			must(t, "ip", "-n", e.h, "link", "set", e.dev, "mtu", "1500")
		}

		// Nobody hears that a packet was too large. IPv4 goes on, in fragments that the router
		// makes; over IPv6 only the ends make fragments, and they do not know.
		l.router.run("nft", `add table inet s; add chain inet s o { type filter hook output priority 0; };
			add rule inet s o icmp type destination-unreachable drop; add rule inet s o icmpv6 type packet-too-big drop`)
		l.set(1400)
		l.dial(gwPublic4)
		if got := l.load(); got != wholeFile {
			t.Errorf("\"too big\" swallowed, by IPv4: %s bytes came", got)
		}
		w.vpnctl("settings", "set", "--mtu", "1300")
		check("\"too big\" swallowed, with an MTU of 1300 by hand")

		if log := w.vpnd.log.String(); strings.Contains(log, "too long") {
			t.Errorf("vpnd complains:\n%s", log)
		}
	})
}
