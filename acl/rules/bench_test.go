package rules_test

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"vpnd/acl/acltest"
	"vpnd/acl/language"
	"vpnd/acl/rules"
)

// large is a policy of the sizes that are promised.
func large(devices, groups, grants int) acltest.Large {
	return acltest.Large{Devices: devices, Groups: groups, Grants: grants, Target: "192.168.50.2"}
}

func deviceAddr(i int, is4 bool) netip.Addr {
	if is4 {
		return netip.AddrFrom4([4]byte{10, 77, byte(i >> 8), byte(i)}).Next()
	}
	a := [16]byte{0xfd, 0x77}
	a[13], a[14], a[15] = byte(i>>16), byte(i>>8), byte(i)
	return netip.AddrFrom16(a).Next()
}

var benchOptions = rules.Options{
	Network: []netip.Prefix{netip.MustParsePrefix("10.77.0.0/16"), netip.MustParsePrefix("fd77::/64")},
	Gateway: []netip.Addr{netip.MustParseAddr("10.77.255.254"), netip.MustParseAddr("fd77:0:0:0:ffff::1")},
	Session: 12 * time.Hour,
}

func compileLarge(tb testing.TB, l acltest.Large) *rules.Ruleset {
	p, err := language.Parse([]byte(l.Text()))
	if err != nil {
		tb.Fatal(err)
	}
	r, err := rules.Compile(p, acltest.LargeOptions, l.Subjects())
	if err != nil {
		tb.Fatal(err)
	}
	return r
}

func BenchmarkParse(b *testing.B) {
	text := []byte(large(10_000, 500, 1000).Text())
	b.ReportAllocs()
	b.SetBytes(int64(len(text)))
	for b.Loop() {
		if _, err := language.Parse(text); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkCompile(b *testing.B) {
	for _, size := range []struct{ devices, groups, grants int }{{10, 5, 10}, {10_000, 500, 1000}, {50_000, 500, 5000}} {
		b.Run(fmt.Sprintf("devices=%d/grants=%d", size.devices, size.grants), func(b *testing.B) {
			l := large(size.devices, size.groups, size.grants)
			subjects := l.Subjects()
			p, err := language.Parse([]byte(l.Text()))
			if err != nil {
				b.Fatal(err)
			}
			b.ReportAllocs()
			for b.Loop() {
				if _, err := rules.Compile(p, acltest.LargeOptions, subjects); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkAllows(b *testing.B) {
	r := compileLarge(b, large(10_000, 500, 1000))
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
			r := compileLarge(b, large(devices, 500, 1000))
			put := []rules.Subject{{Device: "u0/new", User: "u0", Addrs: []netip.Addr{deviceAddr(60_001, true), deviceAddr(60_001, false)}}}
			b.ReportAllocs()
			for b.Loop() {
				r.With(put, nil)
			}
		})
	}
}

// BenchmarkRegroup adds a user to a group and takes her out again.
func BenchmarkRegroup(b *testing.B) {
	for _, size := range []struct{ devices, groups, grants int }{{10, 5, 10}, {10_000, 500, 10}, {10_000, 500, 1000}, {50_000, 500, 5000}} {
		b.Run(fmt.Sprintf("devices=%d/groups=%d/grants=%d", size.devices, size.groups, size.grants), func(b *testing.B) {
			l := large(size.devices, size.groups, size.grants)
			text := [2]string{1: l.Text()}
			l.More = map[int][]string{3: {l.User(4)}}
			text[0] = l.Text()
			o := acltest.LargeOptions
			o.Stored = true
			p, err := language.Parse([]byte(text[1]))
			if err != nil {
				b.Fatal(err)
			}
			r, err := rules.Compile(p, o, l.Subjects())
			if err != nil {
				b.Fatal(err)
			}
			put := []rules.Subject{l.Subject(8), l.Subject(9)}
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				next, _, ok := r.Regroup(text[i%2])
				if !ok {
					b.Fatal("not the short way")
				}
				r = next.With(put, nil)
			}
		})
	}
}

func BenchmarkVerdict(b *testing.B) {
	live := rules.Session{Until: acltest.Now.Add(time.Hour), Code: acltest.Now}
	run := func(l acltest.Large) func(*testing.B) {
		r := compileLarge(b, l)
		return func(b *testing.B) {
			rng := rand.New(rand.NewPCG(2, 2))
			var packets []rules.Packet
			for tries := 0; len(packets) < 4096; tries++ {
				g := rng.IntN(l.Grants)
				p := rules.Packet{Src: l.Addr(rng.IntN(l.Devices), true), SrcSession: live, Dst: l.Host(g), Proto: 6, DstPort: uint16(1000 + g)}
				if g%2 == 1 {
					p.DstPort = uint16(10_000 + g)
				} else if rng.IntN(2) == 0 {
					p.DstPort = 8050
				}
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
	b.Run("grants=10", run(large(10_000, 10, 10)))
	b.Run("grants=1000", run(large(10_000, 500, 1000)))
	b.Run("grants=5000", run(large(50_000, 500, 5000)))
}
