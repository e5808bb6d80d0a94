package filter

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"vpnd/acl/language"
	"vpnd/acl/rules"
	"vpnd/internal/dataplane"
)

// manyResources is a policy of n resources, each with a grant of its own; n is below 60,000.
func manyResources(tb testing.TB, l *large, n int, extra string) (*rules.Ruleset, []dataplane.Service) {
	tb.Helper()
	var text, grants strings.Builder
	o := rules.Options{Network: l.state.Gateway.Network, Gateway: l.state.Gateway.Addrs, Session: 12 * time.Hour, Stored: true, Services: map[string][]netip.Addr{}}
	var out []dataplane.Service
	upper4, upper6 := rules.Upper(o.Network[0]).Addr().As4(), rules.Upper(o.Network[1]).Addr().As16()
	for i := range n {
		name := fmt.Sprintf("r%d", i)
		a4, a6 := upper4, upper6
		a4[2], a4[3] = byte((i+1)>>8), byte(i+1)
		a6[14], a6[15] = a4[2], a4[3]
		s := dataplane.Service{Name: name, Addrs: []netip.Addr{netip.AddrFrom4(a4), netip.AddrFrom16(a6)}, Ports: tcpPort(443),
			Hosts: []netip.Addr{netip.AddrFrom4([4]byte{172, 16, byte(i / 250), byte(i%250 + 1)})}}
		if i%2 == 1 {
			s.Ports, s.ToPort = tcpPort(uint16(1000+i)), 443
		}
		fmt.Fprintf(&text, "%q: {\"to\": \"%s:443\", \"port\": %d},\n", name, s.Hosts[0], s.Ports[0].First)
		fmt.Fprintf(&grants, "{\"src\": [\"u%d\", \"u%d\"], \"dst\": [%q]},\n", i%(len(l.subjects)/2), (i*7)%(len(l.subjects)/2), name)
		o.Services[name] = s.Addrs
		out = append(out, s)
	}
	p, err := language.Parse([]byte("{\"resources\": {" + text.String() + "}, \"grants\": [" + grants.String() + extra + "]}"))
	if err != nil {
		tb.Fatal(err)
	}
	r, err := rules.Compile(p, o, l.subjects)
	if err != nil {
		tb.Fatal(err)
	}
	return r, out
}

// BenchmarkServices compiles a policy of 1,000 resources with a grant each, changes over to
// it, and moves one of its targets, among ten thousand devices.
func BenchmarkServices(b *testing.B) {
	if os.Getenv(inside) == "" {
		b.Fatal("network namespaces need root")
	}
	l := newLarge(b, 10_000, 500, 1000)
	f := l.open(b)
	ctx := context.Background()
	if err := f.Set(ctx, l.state); err != nil {
		b.Fatal(err)
	}
	var ruleset [2]*rules.Ruleset
	var services []dataplane.Service
	b.Run("Compile", func(b *testing.B) {
		for i := 0; b.Loop(); i++ {
			ruleset[i%2], services = manyResources(b, l, 1000, "")
		}
	})
	ruleset[0], services = manyResources(b, l, 1000, "")
	ruleset[1], _ = manyResources(b, l, 1000, `{"src": ["u1"], "dst": ["r0"]}`)
	b.Run("Swap", func(b *testing.B) {
		for i := 0; b.Loop(); i++ {
			if err := f.Update(ctx, dataplane.Change{Rules: ruleset[i%2], Services: services}); err != nil {
				b.Fatal(err)
			}
			b.StopTimer()
			time.Sleep(2 * grace)
			b.StartTimer()
		}
	})
	b.Run("Target", func(b *testing.B) {
		for i := 0; b.Loop(); i++ {
			moved := slices.Clone(services)
			moved[500].Hosts = []netip.Addr{netip.AddrFrom4([4]byte{172, 17, 0, byte(i)})}
			if err := f.Update(ctx, dataplane.Change{Services: moved}); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// BenchmarkFirstPacket sends the first packets of flows to a resource and to a host behind the
// gateway in turns, and compares what the kernel takes for each from the tunnel's interface
// to the other one.
func BenchmarkFirstPacket(b *testing.B) {
	l := newLarge(b, 1000, 0, 0)
	w := way{iface: "vt", mark: markBit, portal: portalPort, gateway: l.state.Gateway}
	x := newWire(b, w)
	f := l.open(b)
	host := netip.MustParseAddr("172.16.0.200")
	extra := fmt.Sprintf(`{"src": ["u0"], "dst": ["%s"], "ip": ["tcp:443"]}, {"src": ["u0"], "dst": ["r501"]}`, host)
	l.state.Rules, l.state.Services = manyResources(b, l, 1000, extra)
	if err := f.Set(b.Context(), l.state); err != nil {
		b.Fatal(err)
	}
	from := l.subjects[0].Addrs[0]
	for name, i := range map[string]int{"same port": 0, "another port": 501} {
		s := l.state.Services[i]
		b.Run(name, func(b *testing.B) {
			var took [2][]time.Duration // of each burst: other work of the machine hits a few
			const burst = 500
			for b.Loop() {
				for side, to := range []netip.AddrPort{netip.AddrPortFrom(host, 443), netip.AddrPortFrom(s.Addrs[0], s.Ports[0].First)} {
					var packets [][]byte
					for range burst {
						x.next++
						packets = append(packets, wirePacket(rules.Packet{Src: from, Dst: to.Addr(), Proto: unix.IPPROTO_TCP, DstPort: to.Port()}, x.next))
					}
					begin := time.Now()
					for _, p := range packets {
						if _, err := unix.Write(x.tunnel, p); err != nil {
							b.Fatal(err)
						}
					}
					took[side] = append(took[side], time.Since(begin)/burst)
					arrived := 0
					for buf := make([]byte, 4096); ; {
						if _, err := unix.Read(x.outside, buf); err != nil {
							break
						}
						if buf[0]>>4 == 4 && buf[9] == unix.IPPROTO_TCP {
							arrived++
						}
					}
					if arrived != burst {
						b.Fatalf("%d of %d packets came through to %s", arrived, burst, to)
					}
					c, err := dialConntrack()
					if err == nil {
						err = c.Flush()
						_ = c.Close()
					}
					if err != nil {
						b.Fatal(err)
					}
				}
			}
			median := func(list []time.Duration) float64 {
				slices.Sort(list)
				return float64(list[len(list)/2])
			}
			b.ReportMetric(median(took[0]), "ns/host")
			b.ReportMetric(median(took[1]), "ns/resource")
			b.ReportMetric(median(took[1])/median(took[0]), "ratio")
		})
	}
}
