package e2e

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"vpnd/test/report"
)

// TestLinesBench compares downloads over narrow lines with those through Debian's
// wireguard-go, which stands on the same host as vpnd and serves the same client. It is a part
// of `make bench`.
func TestLinesBench(t *testing.T) {
	if os.Getenv("VPND_BENCH") == "" {
		t.Skip("it is a benchmark: see test/bench")
	}
	for _, plane := range []string{"linux", "netstack"} {
		r := report.Report{}
		r.Head("Downloads over lines that are narrower than the gateway's, " + plane + " plane: 30 MB by HTTP\nto one client; medians of 5 turns, in Mbit/s, and of vpnd's ratios to Debian's wireguard-go")
		t.Run(plane, func(t *testing.T) {
			w := newWorld(t, plane)
			w.gw.run("sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1")
			l := behindRouter(w)
			ref := l.reference()
			for _, mtu := range []int{1500, 1460, 1400, 1280} {
				l.set(mtu)
				for _, gateway := range []string{gwPublic4, gwPublic6} {
					l.dial(gateway)
					ref.dial(gateway)
					var ours, theirs, ratios []float64
					for i := range 5 {
						var a, b float64
						one := func() { a = ref.speed("ref" + strconv.Itoa(w.id) + "c") }
						other := func() { b = ref.speed(l.iface) }
						if i%2 == 1 { // nobody has the better place
							one, other = other, one
						}
						one()
						other()
						theirs, ours = append(theirs, a), append(ours, b)
						if a > 0 {
							ratios = append(ratios, b/a)
						}
					}
					family := map[string]string{gwPublic4: "IPv4", gwPublic6: "IPv6"}[gateway]
					if len(ratios) == 0 {
						ratios = []float64{0}
					}
					r.Add("  %5d bytes, %s outside   Debian's %4.0f   vpnd %4.0f   %.2f", mtu, family, report.Median(theirs), report.Median(ours), report.Median(ratios))
				}
			}
		})
	}
}

// reference is a tunnel between the same two hosts by Debian's wireguard-go at both ends.
type reference struct {
	*lines
	key string // the gateway's public key
}

func (l *lines) reference() *reference {
	l.t.Helper()
	id := strconv.Itoa(l.w.id)
	pair := func() (private, public string) {
		private = strings.TrimSpace(must(l.t, "wg", "genkey"))
		public, err := l.tryInput(private, "wg", "pubkey")
		if err != nil {
			l.t.Fatal(err)
		}
		return private, strings.TrimSpace(public)
	}
	gwKey, gwPub := pair()
	clKey, clPub := pair()
	for _, e := range []struct {
		h                        *host
		iface, key, peer, addr   string
		addr6, allowed, endpoint string
	}{
		{l.w.gw, "ref" + id + "g", gwKey, clPub, "10.78.0.1/24", "fd78::1/64", "10.78.0.2/32,fd78::2/128", ""},
		{l.host, "ref" + id + "c", clKey, gwPub, "10.78.0.2/24", "fd78::2/64", "0.0.0.0/0,::/0", gwPublic4 + ":51999"},
	} {
		e.h.start([]string{"WG_PROCESS_FOREGROUND=1"}, "wireguard-go", "-f", e.iface)
		eventually(l.t, 10*time.Second, "wireguard-go runs", func() error {
			_, err := os.Stat("/run/wireguard/" + e.iface + ".sock")
			return err
		})
		conf := fmt.Sprintf("[Interface]\nPrivateKey = %s\n", e.key)
		if e.endpoint == "" {
			conf += "ListenPort = 51999\n"
		}
		conf += fmt.Sprintf("[Peer]\nPublicKey = %s\nAllowedIPs = %s\n", e.peer, e.allowed)
		if e.endpoint != "" {
			conf += "Endpoint = " + e.endpoint + "\n"
		}
		file := l.w.path("ref-" + e.iface)
		if err := os.WriteFile(file, []byte(conf), 0o600); err != nil {
			l.t.Fatal(err)
		}
		e.h.run("wg", "setconf", e.iface, file)
		e.h.run("ip", "link", "set", e.iface, "mtu", "1420", "up")
		e.h.addr(e.iface, e.addr)
		e.h.addr(e.iface, e.addr6)
	}
	l.w.gw.run("nft", `add table inet ref; add chain inet ref post { type nat hook postrouting priority 100; };
		add rule inet ref post ip saddr 10.78.0.0/24 masquerade; add rule inet ref post ip6 saddr fd78::/64 masquerade`)
	return &reference{l, gwPub}
}

func (r *reference) dial(gateway string) {
	if strings.Contains(gateway, ":") {
		gateway = "[" + gateway + "]"
	}
	r.run("wg", "set", "ref"+strconv.Itoa(r.w.id)+"c", "peer", r.key, "endpoint", gateway+":51999")
}

// speed downloads through one of the client's tunnels and gives Mbit/s; 0: it did not come.
func (r *reference) speed(iface string) float64 {
	r.t.Helper()
	r.run("ip", "route", "replace", "198.51.100.0/24", "dev", iface)
	out, err := r.try("curl", "-s", "-o", "/dev/null", "--max-time", "15", "-w", "%{size_download} %{speed_download}", "http://"+lan4+"/huge")
	var size, speed float64
	if _, scan := fmt.Sscan(out, &size, &speed); scan != nil || size != hugeFile {
		r.t.Logf("%s: %q %v", iface, out, err)
		return 0
	}
	return speed * 8 / 1e6
}
