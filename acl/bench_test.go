package acl_test

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"
	"time"

	"vpnd/acl"
	"vpnd/acl/acltest"
)

// large makes a policy and devices of the sizes that are promised: two devices a
// user, groups of 100 users, every grant from a group to a host of its own.
func large(devices, groups, grants int) ([]byte, []acl.Subject) {
	rng := rand.New(rand.NewPCG(1, 1))
	var subjects []acl.Subject
	for i := range devices {
		subjects = append(subjects, acl.Subject{
			Device: fmt.Sprintf("user%d/device%d", i/2, i%2), User: fmt.Sprintf("user%d", i/2),
			Addrs: []netip.Addr{deviceAddr(i, true), deviceAddr(i, false)},
		})
	}
	var b strings.Builder
	b.WriteString("{\"groups\": {\n")
	for g := range groups {
		var users []string
		for range 100 {
			users = append(users, fmt.Sprintf("%q", fmt.Sprintf("user%d", rng.IntN(devices/2))))
		}
		fmt.Fprintf(&b, "\"group:g%d\": [%s],\n", g, strings.Join(users, ", "))
	}
	b.WriteString("},\n\"hosts\": {\n")
	for h := range grants {
		fmt.Fprintf(&b, "\"h%d\": \"192.168.%d.%d\",\n", h, h/250, h%250+1)
	}
	b.WriteString("},\n\"grants\": [\n")
	for g := range grants {
		fmt.Fprintf(&b, "{\"src\": [\"group:g%d\"], \"dst\": [\"h%d\"], \"ip\": [\"tcp:%d\", \"tcp:8000-8100\"]},\n", g%groups, g, 1000+g)
		if g%10 == 0 { // and some share a network
			fmt.Fprintf(&b, "{\"src\": [\"group:g%d\"], \"dst\": [\"192.168.%d.0/24\"], \"ip\": [\"udp:53\", \"icmp\"]},\n", g%groups, g%4)
		}
	}
	b.WriteString("]}\n")
	return []byte(b.String()), subjects
}

func deviceAddr(i int, is4 bool) netip.Addr {
	if is4 {
		return netip.AddrFrom4([4]byte{10, 77, byte(i >> 8), byte(i)}).Next()
	}
	a := [16]byte{0xfd, 0x77}
	a[13], a[14], a[15] = byte(i>>16), byte(i>>8), byte(i)
	return netip.AddrFrom16(a).Next()
}

var benchOptions = acl.Options{
	Network: []netip.Prefix{netip.MustParsePrefix("10.77.0.0/16"), netip.MustParsePrefix("fd77::/64")},
	Gateway: []netip.Addr{netip.MustParseAddr("10.77.255.254"), netip.MustParseAddr("fd77:0:0:0:ffff::1")},
	Session: 12 * time.Hour,
}

func compileLarge(tb testing.TB, devices, groups, grants int) *acl.Ruleset {
	text, subjects := large(devices, groups, grants)
	p, err := acl.Parse(text)
	if err != nil {
		tb.Fatal(err)
	}
	r, err := acl.Compile(p, benchOptions, subjects)
	if err != nil {
		tb.Fatal(err)
	}
	return r
}

func BenchmarkParse(b *testing.B) {
	text, _ := large(10_000, 500, 1000)
	b.ReportAllocs()
	b.SetBytes(int64(len(text)))
	for b.Loop() {
		if _, err := acl.Parse(text); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkCompile(b *testing.B) {
	for _, size := range []struct{ devices, groups, grants int }{{10, 5, 10}, {10_000, 500, 1000}, {50_000, 500, 5000}} {
		b.Run(fmt.Sprintf("devices=%d/grants=%d", size.devices, size.grants), func(b *testing.B) {
			text, subjects := large(size.devices, size.groups, size.grants)
			p, err := acl.Parse(text)
			if err != nil {
				b.Fatal(err)
			}
			b.ReportAllocs()
			for b.Loop() {
				if _, err := acl.Compile(p, benchOptions, subjects); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkAllows(b *testing.B) {
	r := compileLarge(b, 10_000, 500, 1000)
	b.ReportAllocs()
	n := 0
	for b.Loop() {
		n = len(r.Allows(acltest.Now))
	}
	b.ReportMetric(float64(n), "entries")
}

func BenchmarkWith(b *testing.B) {
	for _, devices := range []int{10, 10_000, 50_000} {
		b.Run(fmt.Sprintf("devices=%d", devices), func(b *testing.B) {
			r := compileLarge(b, devices, 500, 1000)
			put := []acl.Subject{{Device: "user0/new", User: "user0", Addrs: []netip.Addr{deviceAddr(60_001, true), deviceAddr(60_001, false)}}}
			b.ReportAllocs()
			for b.Loop() {
				r.With(put, nil)
			}
		})
	}
}

func BenchmarkVerdict(b *testing.B) {
	live := acl.Session{Until: acltest.Now.Add(time.Hour), Code: acltest.Now}
	run := func(r *acl.Ruleset, devices int) func(*testing.B) {
		return func(b *testing.B) {
			rng := rand.New(rand.NewPCG(2, 2))
			var packets []acl.Packet
			for tries := 0; len(packets) < 4096; tries++ {
				h := rng.IntN(1000)
				port := 1000 + h
				if rng.IntN(2) == 0 {
					port = 8050
				}
				p := acl.Packet{Src: deviceAddr(rng.IntN(devices), true), SrcSession: live,
					Dst: netip.AddrFrom4([4]byte{192, 168, byte(h / 250), byte(h%250 + 1)}), Proto: 6, DstPort: uint16(port)}
				// Nine of ten are allowed, as in life, where they can be found.
				if tries > 400_000 || rng.IntN(500) == 0 || r.Verdict(p, acltest.Now).Allow {
					packets = append(packets, p)
				}
			}
			b.ReportAllocs()
			allowed, i := 0, 0
			for b.Loop() {
				if r.Verdict(packets[i&4095], acltest.Now).Allow {
					allowed++
				}
				i++
			}
			b.ReportMetric(float64(allowed)/float64(i), "allowed/op")
		}
	}
	b.Run("grants=10", run(compileLarge(b, 10_000, 10, 10), 10_000))
	b.Run("grants=1000", run(compileLarge(b, 10_000, 500, 1000), 10_000))
	b.Run("grants=5000", run(compileLarge(b, 50_000, 500, 5000), 50_000))
}
