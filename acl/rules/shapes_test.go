package rules

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"runtime"
	"strings"
	"testing"
	"time"

	"vpnd/acl/language"
)

// shape is a policy of any size that repeats one pattern: each part of its grants is one of
// the ways in which parts of many grants may lie to each other.
type shape struct{ src, dst, ip, mfa, more, subjects int }

// The ways, each for the i-th of n grants.
var (
	shapeSrc = []func(i, n int) string{
		func(i, _ int) string { return fmt.Sprintf(`"u%d"`, i) },
		func(int, int) string { return `"*"` },
		func(int, int) string { return `"autogroup:member", "group:all"` },
		func(i, _ int) string { return fmt.Sprintf(`"10.%d.%d.0/24"`, i>>8&255, i&255) },
		func(i, _ int) string { return fmt.Sprintf(`"%x::/%d"`, 0x2000, 16+i%112) },
		func(i, _ int) string { return fmt.Sprintf(`"group:g%d"`, i%64) },
		func(int, int) string { return `"ipset:comb"` },
	}
	shapeDst = []func(i, n int) string{
		func(int, int) string { return `"10.0.0.1"` },
		func(int, int) string { return `"*"` },
		func(i, _ int) string { return fmt.Sprintf(`"10.%d.%d.0/24"`, i>>8&255, i&255) },
		func(i, _ int) string { return fmt.Sprintf(`"::/%d"`, i%128) },
		func(i, _ int) string { return fmt.Sprintf(`"10.%d.%d.%d", "::/%d"`, i%200, i/200%256, i%7, i%128) },
		func(i, _ int) string { // prefixes of all lengths around each other
			p, _ := netip.AddrFrom4([4]byte{10, byte(i * 37), byte(i * 91), byte(i)}).Prefix(8 + i%17)
			return fmt.Sprintf("%q", p)
		},
		func(int, int) string { return `"ipset:comb"` },
		func(int, int) string { return `"ipset:comb", "ipset:holes"` },
		func(i, _ int) string { return fmt.Sprintf(`"u%d"`, i) },
		func(int, int) string { return `"group:all"` },
	}
	shapeIP = []func(i, n int) string{
		func(int, int) string { return `"*"` },
		func(i, _ int) string { return fmt.Sprintf(`"tcp:%d"`, 1+i%65535) },
		func(i, _ int) string { return fmt.Sprintf(`"tcp:%d-%d"`, 1+i*3%30000, 40000+i*2%20000) },
		func(i, _ int) string {
			return fmt.Sprintf(`"tcp:%d-%d", "udp:%d"`, 1+i%30000, 65535-i%30000, 1+i%65535)
		},
		func(i, n int) string { // many ports in each
			var list []string
			for k := range min(n, 200) {
				list = append(list, fmt.Sprint(1+(i*7+k*(3+i%5))%65535))
			}
			return `"tcp:` + strings.Join(list, ",") + `"`
		},
	}
	shapeMFA = []func(i, n int) string{
		func(int, int) string { return "" },
		func(i, _ int) string { return fmt.Sprintf(`, "mfa": "%ds"`, 60+i) },
		func(i, _ int) string {
			return fmt.Sprintf(`, "expires": "%s"`, time.Date(2027, 1, 1, 0, 0, i, 0, time.UTC).Format(time.RFC3339))
		},
		func(i, _ int) string { return fmt.Sprintf(`, "mfa": "%ds"`, 60+i%8) },
		func(i, _ int) string { return fmt.Sprintf(`, "hours": "Mon %02d:%02d-23:59 UTC"`, i/60%23, i%60) },
	}
)

// text is the policy with n grants. more selects what stands around them.
func (s shape) text(n int) string {
	var b strings.Builder
	b.WriteString(`{"ipsets": {"ipset:comb": ["10.200.0.0/32"`)
	for i := range n {
		fmt.Fprintf(&b, `, "10.%d.%d.%d"`, 200+i>>15&15, i>>7&255, i&127*2)
	}
	b.WriteString(`], "ipset:holes": ["172.16.0.0/12"`)
	for i := range n {
		how := []string{"remove", "remove", "add"}[i%(2+s.more/2)] // one after the other, or by turns
		fmt.Fprintf(&b, `, "%s 172.%d.%d.%d"`, how, 16+i>>15&15, i>>7&255, i&127*2)
	}
	b.WriteString(`]}, "groups": {"group:all": ["u0"`)
	for i := range n {
		fmt.Fprintf(&b, `, "u%d"`, i)
	}
	b.WriteString("]")
	for i := range 64 {
		fmt.Fprintf(&b, `, "group:g%d": ["u%d", "u%d"]`, i, i, n-i)
	}
	b.WriteString("},\n\"grants\": [")
	for i := range n {
		src, dst := shapeSrc[s.src](i, n), shapeDst[s.dst](i, n)
		if s.more == 1 && i%2 == 1 { // the other way round
			src, dst = strings.ReplaceAll(dst, `"*"`, `"0.0.0.0/0"`), src
		}
		fmt.Fprintf(&b, "\n{\"src\": [%s], \"dst\": [%s], \"ip\": [%s]%s},", src, dst, shapeIP[s.ip](i, n), shapeMFA[s.mfa](i, n))
	}
	if s.more == 2 {
		b.WriteString(`{"src": ["autogroup:member"], "dst": ["autogroup:self"], "ip": ["*"]},`)
	}
	b.WriteString("]}")
	return b.String()
}

// grown is what a shape costs at one size.
type grown struct {
	n, text   int
	counted   int // by the budget
	allocated int
	refused   bool
}

// cost parses and compiles a shape, with devices for every user or for none.
func (s shape) cost(t *testing.T, n int) grown {
	t.Helper()
	text := s.text(n)
	o := Options{Network: []netip.Prefix{netip.MustParsePrefix("10.64.0.0/12"), netip.MustParsePrefix("fd77::/64")},
		Gateway: []netip.Addr{netip.MustParseAddr("10.64.0.1")}, Session: 12 * time.Hour}
	var subjects []Subject
	if s.subjects == 1 {
		for i := range n {
			subjects = append(subjects, Subject{Device: fmt.Sprintf("u%d/d", i), User: fmt.Sprintf("u%d", i), Addrs: []netip.Addr{netip.AddrFrom4([4]byte{10, 65, byte(i >> 8), byte(i)})}})
		}
	}
	p, err := language.Parse([]byte(text))
	if err != nil {
		t.Fatalf("%+v at %d: %.300v", s, n, err)
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	r, err := Compile(p, o, subjects)
	runtime.ReadMemStats(&after)
	g := grown{n: n, text: len(text), allocated: int(after.TotalAlloc - before.TotalAlloc), refused: err != nil, counted: MaxBytes}
	if err == nil {
		g.counted = MaxBytes - r.c.budget.Left()
		return g
	}
	list, ok := errors.AsType[language.ErrorList](err)
	if !ok {
		t.Fatalf("%+v at %d: %v", s, n, err)
	}
	for _, e := range list {
		if !e.Warning && !(e.Line > 1 && strings.HasPrefix(e.Text, "{")) && !strings.HasPrefix(e.Text, `"`) {
			t.Errorf("%+v at %d: the fault names neither a grant nor an IP set: %v", s, n, e)
		}
	}
	return g
}

// grow measures a shape at n, 2n, 4n and 8n grants. Whatever its cost, the budget must count
// it: what is allocated beside follows the text and the devices, and there is an end to it.
func (s shape) grow(t *testing.T, n int) {
	t.Helper()
	const most = 256 << 20
	var sizes []grown
	for range 4 {
		g := s.cost(t, n)
		sizes = append(sizes, g)
		if g.allocated > most {
			t.Errorf("%+v: %d bytes are allocated at %d grants", s, g.allocated, n)
		}
		// Every counted byte may be taken twice, as lists grow; a byte of text is worth some
		// values, each with its place, and a device its entries in tables.
		if free := 2*g.counted + 120*g.text + 2000*n + 1<<20; g.allocated > free {
			t.Errorf("%+v: at %d grants %d bytes are allocated and %d counted, of a text of %d", s, n, g.allocated, g.counted, g.text)
		}
		n *= 2
	}
	for i := 1; i < len(sizes); i++ {
		a, b := sizes[i-1], sizes[i]
		beside, before := b.allocated-2*b.counted, a.allocated-2*a.counted
		if ratio := float64(b.text) / float64(a.text); beside > 4<<20 && float64(beside) > 1.5*ratio*float64(max(before, 1<<20)) {
			t.Errorf("%+v: from %d to %d grants, what nobody counts grows from %d to %d bytes", s, a.n, b.n, before, beside)
		}
	}
	t.Logf("%+v: %+v", s, sizes)
}

func shapeOf(b uint64) shape {
	take := func(n int) int { k := int(b % uint64(n)); b /= uint64(n); return k }
	return shape{take(len(shapeSrc)), take(len(shapeDst)), take(len(shapeIP)), take(len(shapeMFA)), take(3), take(2)}
}

// FuzzShapes looks for shapes of policies that cost more than is counted.
func FuzzShapes(f *testing.F) {
	rng := rand.New(rand.NewPCG(12, 12))
	for range 8 {
		f.Add(rng.Uint64(), uint8(rng.IntN(256)))
	}
	f.Fuzz(func(t *testing.T, kind uint64, n uint8) { shapeOf(kind).grow(t, 20+int(n)/2) })
}

// TestShapes is what a short run sees: the shapes that were found, as large as texts get.
func TestShapes(t *testing.T) {
	for _, s := range []shape{
		{src: 0, dst: 0, ip: 2, mfa: 1}, {src: 0, dst: 0, ip: 2, mfa: 2, subjects: 1}, {src: 0, dst: 5, ip: 2}, {src: 0, dst: 4, ip: 1},
		{src: 6, dst: 6, ip: 1}, {src: 6, dst: 7, ip: 3, more: 1}, {src: 4, dst: 3, ip: 4, mfa: 3}, {src: 5, dst: 9, ip: 4, mfa: 1, more: 2, subjects: 1},
	} {
		s.grow(t, 150)
	}
}
