package scale

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"os/exec"
	"strings"
	"testing"
	"time"

	"vpnd/acl/acltest"
	"vpnd/acl/language"
	"vpnd/acl/rules"
	"vpnd/internal/dataplane"
	"vpnd/internal/dataplane/linux/filter"
	"vpnd/test/report"
)

// Where the packets go: every second grant leads to ports of this host.
const (
	target     = "192.168.50.2"
	targetPort = 9000
)

// way is a gateway of its own between a client and a resource, with a ruleset:
//
//	client ── vt ── gateway ── lan0 ── resource
//
// The "tunnel" is a plain veth, so that nothing but the ruleset differs.
type way struct {
	name    string
	rules   string // nft's, in the place of the filter's
	large   *acltest.Large
	masq    bool
	iface   string // the tunnel's, on the gateway
	client  string // namespaces
	gateway string
	lan     string
	filter  *filter.Filter
	flood   *flood
	rates   []float64
}

// emptyRules is a ruleset that accepts, at the hooks that the filter has.
const emptyRules = `table inet none {
	chain prerouting { type filter hook prerouting priority -90; policy accept; }
	chain forward { type filter hook forward priority 0; policy accept; }
}`

// tracking is the least that tells flows apart, as any stateful gateway must.
const trackingRules = `table inet tracking {
	chain prerouting { type filter hook prerouting priority -90; policy accept; ct state invalid drop; }
	chain forward { type filter hook forward priority 0; policy accept; }
}`

// masqueradingRules hide the client as well.
const masqueradingRules = `table inet masquerading {
	chain prerouting { type filter hook prerouting priority -90; policy accept; ct state invalid drop; }
	chain forward { type filter hook forward priority 0; policy accept; }
	chain postrouting { type nat hook postrouting priority 95; policy accept; oifname "lan0" masquerade; }
}`

func (w *way) open(t *testing.T, n int) {
	t.Helper()
	w.client, w.gateway, w.lan = fmt.Sprintf("c%d", n), fmt.Sprintf("g%d", n), fmt.Sprintf("l%d", n)
	here := acltest.Large{}.Addr(0, true)
	sh(t, fmt.Sprintf(`
for n in %[1]s %[2]s %[3]s; do ip netns add $n; ip -n $n link set lo up; done
ip link add vt netns %[2]s type veth peer name eth0 netns %[1]s
ip link add lan0 netns %[2]s type veth peer name eth0 netns %[3]s
ip -n %[1]s addr add %[4]s/32 dev eth0
ip -n %[1]s link set eth0 up
ip -n %[1]s route add 10.64.0.1 dev eth0
ip -n %[1]s route add default via 10.64.0.1
ip -n %[2]s addr add 10.64.0.1/12 dev vt
ip -n %[2]s link set vt up
ip -n %[2]s addr add 192.168.50.1/24 dev lan0
ip -n %[2]s link set lan0 up
ip -n %[3]s addr add %[5]s/24 dev eth0
ip -n %[3]s link set eth0 up
ip -n %[3]s route add default via 192.168.50.1
ip netns exec %[2]s sh -c 'echo 1 >/proc/sys/net/ipv4/ip_forward; for c in all vt lan0; do echo 0 >/proc/sys/net/ipv4/conf/$c/rp_filter; done'
# The neighbours are known, and the resource counts its packets and drops them.
ip -n %[2]s neigh replace %[4]s dev vt lladdr $(ip netns exec %[1]s cat /sys/class/net/eth0/address)
ip -n %[2]s neigh replace %[5]s dev lan0 lladdr $(ip netns exec %[3]s cat /sys/class/net/eth0/address)
ip -n %[1]s neigh replace 10.64.0.1 dev eth0 lladdr $(ip netns exec %[2]s cat /sys/class/net/vt/address)
ip netns exec %[3]s nft add table inet sink '{ chain in { type filter hook prerouting priority -300; policy accept; udp dport %[6]d drop; }; }'
`, w.client, w.gateway, w.lan, here, target, targetPort))
	t.Cleanup(func() {
		for _, n := range []string{w.client, w.gateway, w.lan} {
			_ = exec.Command("ip", "netns", "del", n).Run()
		}
	})
	w.iface = "vt"
	w.load(t)
	var err error
	if w.flood, err = newFlood(w.client, here, netip.AddrPortFrom(netip.MustParseAddr(target), targetPort)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.flood.close)
}

// load gives the gateway its ruleset.
func (w *way) load(t *testing.T) {
	t.Helper()
	if w.rules != "" {
		c := exec.Command("ip", "netns", "exec", w.gateway, "nft", "-f", "-")
		c.Stdin = strings.NewReader(w.rules)
		if out, err := c.CombinedOutput(); err != nil {
			t.Fatalf("nft: %v\n%s", err, out)
		}
	}
	if w.large != nil {
		if err := inNamespace(w.gateway, func() error { return w.openFilter(t) }); err != nil {
			t.Fatal(err)
		}
	}
}

func (w *way) openFilter(t *testing.T) (err error) {
	w.filter, err = filter.Open(t.Context(), filter.Config{Interface: w.iface, AppPort: 8080, PortalPort: 45080, Mark: 0x10000, Log: slog.New(slog.NewTextHandler(t.Output(), nil))})
	if err != nil {
		return err
	}
	t.Cleanup(func() { _ = w.filter.Close() })
	s := stateOf(t, *w.large)
	s.Gateway.Masquerade = w.masq
	return w.filter.Set(context.Background(), s)
}

// stateOf is a desired state in which everybody is signed in.
func stateOf(t *testing.T, l acltest.Large) dataplane.State {
	t.Helper()
	s := dataplane.State{Gateway: dataplane.Gateway{Addrs: acltest.LargeOptions.Gateway, Network: acltest.LargeOptions.Network}}
	now := time.Now()
	subjects := l.Subjects()
	for i, x := range subjects {
		s.Devices = append(s.Devices, dataplane.Device{ID: x.Device, Name: x.Device, Addrs: x.Addrs})
		s.Sessions = append(s.Sessions, dataplane.Session{Device: x.Device, Addrs: x.Addrs, Until: now.Add(time.Hour),
			Codes: []dataplane.Code{{Serial: uint32(i + 1), At: now}}})
	}
	p, err := language.Parse([]byte(l.Text()))
	if err != nil {
		t.Fatal(err)
	}
	if s.Rules, err = rules.Compile(p, acltest.LargeOptions, subjects); err != nil {
		t.Fatal(err)
	}
	return s
}

// rate sends for a while and gives the packets that came out at the far end for a second
// of CPU time.
func (w *way) rate(d time.Duration) (float64, error) {
	before, err := received(w.lan, "eth0")
	if err != nil {
		return 0, err
	}
	took, err := w.flood.run(d)
	if err != nil {
		return 0, err
	}
	time.Sleep(2 * time.Millisecond) // for those still on their way
	after, err := received(w.lan, "eth0")
	if err == nil && after == before {
		err = fmt.Errorf("nothing passes %s", w.name)
	}
	return float64(after-before) / took.Seconds(), err
}

// packets measures what rulesets cost each packet, in short turns.
func packets(t *testing.T, r *report.Report, p plan) {
	large := func(grants int) *acltest.Large {
		return &acltest.Large{Devices: p.devices, Groups: p.groups, Grants: grants, Target: target,
			Extra: []string{fmt.Sprintf(`{"src": ["autogroup:member"], "dst": [%q], "ip": ["udp:%d"]}`, target, targetPort)}}
	}
	few, some, many := p.grants[0], p.grants[1], p.grants[2]
	ways := []*way{
		{name: "an empty ruleset that accepts", rules: emptyRules},
		{name: "the least that tracks flows", rules: trackingRules},
		{name: "the same with masquerading", rules: masqueradingRules},
		{name: fmt.Sprintf("our table, %d grants", few), large: large(few)},
		{name: fmt.Sprintf("our table, %d grants", some), large: large(some)},
		{name: fmt.Sprintf("our table, %d grants", many), large: large(many)},
		{name: fmt.Sprintf("our table, %d grants, masquerading", some), large: large(some), masq: true},
	}
	for n, w := range ways {
		r.Progress("%s", w.name)
		w.open(t, n)
	}
	r.Progress("sending")
	for range p.turns {
		for _, w := range ways {
			rate, err := w.rate(p.turn)
			if err != nil {
				t.Fatal(err)
			}
			w.rates = append(w.rates, rate)
		}
	}
	r.Head("64-byte UDP packets through the gateway, veth to veth, for a second of one CPU's time, sending included;\n%d devices signed in; the medians of %d turns of %v each, and of the ratios within a turn", p.devices, p.turns, p.turn)
	against := func(w, base *way) float64 {
		var ratios []float64
		for i := range w.rates {
			ratios = append(ratios, w.rates[i]/base.rates[i])
		}
		return report.Median(ratios)
	}
	for _, w := range ways {
		r.Add("  %8.0f  %.2f  %s", report.Median(w.rates), against(w, ways[0]), w.name)
	}
	ratio := against(ways[4], ways[0])
	r.Judge(ratio >= 0.8, "with %d grants %.2f of an empty ruleset's (at least 0.8)", some, ratio)
	ratio = against(ways[5], ways[3])
	r.Judge(ratio >= 0.9, "with %d grants %.2f of that with %d (at least 0.9)", many, ratio, few)
	for _, x := range [][2]int{{4, 1}, {6, 2}} {
		r.Add("          %.2f with %d grants of %s", against(ways[x[0]], ways[x[1]]), some, ways[x[1]].name)
	}
}
