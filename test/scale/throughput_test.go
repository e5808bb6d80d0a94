package scale

import (
	"encoding/json"
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"vpnd/acl/acltest"
	"vpnd/test/report"
)

// tunnel is a way whose client comes by WireGuard: Debian's wireguard-go at both ends.
type tunnel struct {
	way
	bits [2][]float64 // a second, up and down
}

func (w *tunnel) open(t *testing.T, n int) {
	t.Helper()
	w.client, w.gateway, w.lan = fmt.Sprintf("tc%d", n), fmt.Sprintf("tg%d", n), fmt.Sprintf("tl%d", n)
	w.iface = fmt.Sprintf("wgs%d", n)
	sh(t, fmt.Sprintf(`
for n in %[1]s %[2]s %[3]s; do ip netns add $n; ip -n $n link set lo up; done
ip link add u0 netns %[2]s type veth peer name u0 netns %[1]s
ip -n %[1]s addr add 192.0.2.2/24 dev u0; ip -n %[1]s link set u0 up
ip -n %[2]s addr add 192.0.2.1/24 dev u0; ip -n %[2]s link set u0 up
ip link add lan0 netns %[2]s type veth peer name eth0 netns %[3]s
ip -n %[2]s addr add 192.168.50.1/24 dev lan0; ip -n %[2]s link set lan0 up
ip -n %[3]s addr add %[5]s/24 dev eth0; ip -n %[3]s link set eth0 up
ip -n %[3]s route add default via 192.168.50.1
umask 077
for e in c g; do wg genkey >/run/%[4]s$e.key; done
ip netns exec %[1]s wireguard-go %[4]sc 2>/dev/null
ip netns exec %[2]s wireguard-go %[4]s 2>/dev/null
ip netns exec %[1]s wg set %[4]sc private-key /run/%[4]sc.key peer $(wg pubkey </run/%[4]sg.key) allowed-ips 0.0.0.0/0 endpoint 192.0.2.1:51820
ip netns exec %[2]s wg set %[4]s private-key /run/%[4]sg.key listen-port 51820 peer $(wg pubkey </run/%[4]sc.key) allowed-ips 10.64.0.2/32
ip -n %[1]s addr add 10.64.0.2/32 dev %[4]sc; ip -n %[1]s link set %[4]sc mtu 1420 up
ip -n %[1]s route add 192.168.50.0/24 dev %[4]sc
ip -n %[2]s addr add 10.64.0.1/12 dev %[4]s; ip -n %[2]s link set %[4]s mtu 1420 up
ip netns exec %[2]s sh -c 'echo 1 >/proc/sys/net/ipv4/ip_forward'
`, w.client, w.gateway, w.lan, w.iface, target))
	t.Cleanup(func() { // wireguard-go ends with its interface
		for ns, dev := range map[string]string{w.client: w.iface + "c", w.gateway: w.iface} {
			_ = exec.Command("ip", "-n", ns, "link", "del", dev).Run()
		}
		for _, n := range []string{w.client, w.gateway, w.lan} {
			_ = exec.Command("ip", "netns", "del", n).Run()
		}
	})
	w.load(t)
	server := exec.Command("ip", "netns", "exec", w.lan, "iperf3", "-s", "-p", "5201")
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = server.Process.Kill(); _ = server.Wait() })
}

// run is one of iperf3's, up (0) or down (1).
func (w *tunnel) run(t *testing.T, direction, seconds int) {
	t.Helper()
	args := []string{"netns", "exec", w.client, "iperf3", "-c", target, "-p", "5201", "-t", fmt.Sprint(seconds), "-J"}
	if direction == 1 {
		args = append(args, "-R")
	}
	var doc struct {
		End struct {
			Received struct {
				Rate float64 `json:"bits_per_second"`
			} `json:"sum_received"`
		}
	}
	for try := 0; ; try++ { // the server takes a moment
		out, err := exec.Command("ip", args...).Output()
		if err == nil {
			err = json.Unmarshal(out, &doc)
		}
		if err == nil && doc.End.Received.Rate > 0 {
			break
		}
		if try == 20 {
			t.Fatalf("iperf3 with %s: %v\n%s", w.name, err, strings.TrimSpace(string(out)))
		}
		time.Sleep(100 * time.Millisecond)
	}
	w.bits[direction] = append(w.bits[direction], doc.End.Received.Rate)
}

// throughput takes the tunnel's throughput apart, in turns.
func throughput(t *testing.T, r *report.Report, p plan) {
	large := &acltest.Large{Devices: p.devices, Groups: p.groups, Grants: p.grants[1], Target: target,
		Extra: []string{fmt.Sprintf(`{"src": ["autogroup:member"], "dst": [%q], "ip": ["tcp:5201"]}`, target)}}
	ways := []*tunnel{
		{way: way{name: "no table"}},
		{way: way{name: "a table that only tracks flows and masquerades", rules: masqueradingRules}},
		{way: way{name: "our table, masquerading", large: large, masq: true}},
	}
	for n, w := range ways {
		r.Progress("a tunnel with %s", w.name)
		w.open(t, n)
	}
	r.Progress("iperf3")
	for k := range p.rounds {
		for i := range ways {
			w := ways[(i+k)%len(ways)] // each comes first, second and last
			for direction := range 2 {
				w.run(t, direction, p.seconds)
			}
		}
	}
	r.Head("A tunnel's throughput by iperf3, one TCP stream, Debian's wireguard-go at both ends; %d devices signed in,\n%d grants; the medians of %d turns of %d s, in Mbit/s, up and down", p.devices, p.grants[1], p.rounds, p.seconds)
	for _, w := range ways {
		r.Add("  %7.0f  %7.0f  %s", report.Median(w.bits[0])/1e6, report.Median(w.bits[1])/1e6, w.name)
	}
	for i, direction := range []string{"up", "down"} {
		against := func(a, b *tunnel) []float64 {
			var ratios []float64
			for k := range a.bits[i] {
				ratios = append(ratios, a.bits[i][k]/b.bits[i][k])
			}
			return slices.Sorted(slices.Values(ratios))
		}
		all := against(ways[2], ways[0])
		r.Judge(report.Median(all) >= .95, "%s, with our table: %.2f of without (the median of %.2f; at least 0.95)", direction, report.Median(all), all)
		r.Add("          of that, tracking and masquerading %.2f, and our table against those %.2f", report.Median(against(ways[1], ways[0])), report.Median(against(ways[2], ways[1])))
	}
}
