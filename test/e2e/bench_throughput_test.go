package e2e

import (
	"encoding/json"
	"fmt"
	"strings"
	"syscall"
	"time"
)

// rates are bits a second that iperf3 measured, [0] up and [1] down: through vpnd as it
// runs, and with Debian's wireguard-go in the place of its own, with our table, with one
// that only tracks flows and masquerades, and with none.
type rates struct {
	vpnd, with, masked, without [2][]float64
}

// maskedTable is the least that a gateway needs that hides its clients.
const maskedTable = `table inet masked {
	chain prerouting { type filter hook prerouting priority -90; policy accept; ct state invalid drop; }
	chain postrouting { type nat hook postrouting priority 95; policy accept; oifname "eth1" masquerade; }
}`

// manyGrants are n grants of groups of ten people each, half of them to ports of the very
// host that iperf3 talks to, so that its packets meet them all.
func manyGrants(n, people int) (grants []string) {
	for i := range n {
		var src []string
		for k := range 10 {
			src = append(src, fmt.Sprintf(`"u%d"`, (i*10+k)%people))
		}
		dst := lan4
		if i%2 == 1 {
			dst = fmt.Sprintf("198.51.100.%d", 11+i%240)
		}
		grants = append(grants, fmt.Sprintf(`{"src": [%s], "dst": ["%s"], "ip": ["tcp:%d", "udp:%d-%d"]}`,
			strings.Join(src, ", "), dst, 10000+i, 20000+10*i, 20005+10*i))
	}
	return grants
}

// throughput measures the tunnel of one person who is signed in beside everybody else.
// vpnd, once killed, leaves its table and takes its wireguard-go along: what the table
// costs is measured with Debian's in its place, which is the same with and without it.
func (b *bed) throughput(pairs, seconds int) (r rates) {
	b.t.Helper()
	v := b.vm
	p, err := v.enrol(b.t.Context())
	if err == nil {
		err = v.wear(p)
	}
	if err != nil {
		b.t.Fatal(err)
	}
	if err := v.signIn(p); err != nil {
		b.t.Fatal(err)
	}
	server := b.lan.start(nil, "iperf3", "-s", "-p", "5201", "--forceflush")
	eventually(b.t, 10*time.Second, "iperf3 serves", func() error {
		if !strings.Contains(server.log.String(), "listening") {
			return fmt.Errorf("not yet")
		}
		return nil
	})
	run := func(direction int) float64 {
		b.t.Helper()
		args := []string{"iperf3", "-c", lan4, "-B", p.addr.String(), "-t", fmt.Sprint(seconds), "-O", "1", "-J"}
		if direction == 1 {
			args = append(args, "-R")
		}
		out := v.host.run(args...)
		var doc struct {
			End struct {
				Received struct {
					Rate float64 `json:"bits_per_second"`
				} `json:"sum_received"`
			}
		}
		if err := json.Unmarshal([]byte(out), &doc); err != nil || doc.End.Received.Rate <= 0 {
			b.t.Fatalf("iperf3: %v\n%s", err, tail(out, 1000))
		}
		return doc.End.Received.Rate
	}
	for k := range pairs {
		if k > 0 {
			b.serve()
		}
		for direction := range 2 {
			r.vpnd[direction] = append(r.vpnd[direction], run(direction))
		}
		conf := b.gw.run("wg", "showconf", b.iface)
		b.vpnd.stop(b.t, syscall.SIGKILL)
		other := b.otherWireGuard(conf)
		for direction := range 2 {
			r.with[direction] = append(r.with[direction], run(direction))
		}
		b.gw.run("nft", "delete", "table", "inet", "vpnd")
		bypass := func(do string) {
			b.gw.run("ip", "rule", do, "pref", "1", "iif", b.iface, "lookup", "main")
			b.gw.run("ip", "rule", do, "pref", "2", "to", benchNetwork, "lookup", "main")
		}
		bypass("add") // our routing rules forward nothing without the table's mark
		// Which of the two comes first changes: what is measured later is often faster.
		measure := []func(){
			func() {
				for direction := range 2 {
					r.without[direction] = append(r.without[direction], run(direction))
				}
			},
			func() {
				if _, err := b.gw.tryInput(maskedTable, "nft", "-f", "-"); err != nil {
					b.t.Fatal(err)
				}
				for direction := range 2 {
					r.masked[direction] = append(r.masked[direction], run(direction))
				}
				b.gw.run("nft", "delete", "table", "inet", "masked")
			},
		}
		measure[k%2]()
		measure[1-k%2]()
		bypass("del")
		other.stop(b.t, syscall.SIGTERM)
	}
	server.stop(b.t, syscall.SIGTERM)
	return r
}

// otherWireGuard puts Debian's wireguard-go in the place of the one that died with vpnd.
func (b *bed) otherWireGuard(conf string) *process {
	b.t.Helper()
	p := b.gw.start([]string{"WG_PROCESS_FOREGROUND=1"}, "wireguard-go", "-f", b.iface)
	eventually(b.t, 20*time.Second, "wireguard-go runs", func() error {
		_, err := b.gw.tryInput(conf, "wg", "setconf", b.iface, "/dev/stdin")
		return err
	})
	b.gw.run("ip", "link", "set", b.iface, "mtu", "1420", "up")
	b.gw.addr(b.iface, benchGateway+"/12")
	b.gw.run("sysctl", "-qw", "net.ipv4.conf."+b.iface+".src_valid_mark=1", "net.ipv4.conf."+b.iface+".forwarding=1")
	return p
}
