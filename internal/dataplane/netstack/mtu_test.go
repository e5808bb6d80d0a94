package netstack

import (
	"encoding/binary"
	"net/netip"
	"slices"
	"testing"
	"time"

	"vpnd/internal/dataplane"
)

// synWith is a SYN with TCP options, padded with their end.
func synWith(src, dst string, flags byte, options ...byte) []byte {
	for len(options)%4 != 0 {
		options = append(options, 0)
	}
	s, d := ap(src), ap(dst)
	b := tcpPacket(src, dst, flags, string(options)+"payload")
	pk, _ := parse(b)
	t := b[pk.l4:]
	t[12] = byte(5+len(options)/4) << 4
	t[16], t[17] = 0, 0
	binary.BigEndian.PutUint16(t[16:], transportSum(s.Addr(), d.Addr(), protoTCP, t))
	return b
}

func TestClampMSS(t *testing.T) {
	const a4, b4, a6, b6 = "10.77.0.2:1", "10.77.0.3:2", "[fd77::2]:1", "[fd77::3]:2"
	mss := func(n uint16) []byte { return binary.BigEndian.AppendUint16([]byte{2, 4}, n) }
	nops := func(n int) []byte { return slices.Repeat([]byte{1}, n) }
	for _, c := range []struct {
		name string
		b    []byte
		want uint16 // 0: unchanged
	}{
		{"IPv4", synWith(a4, b4, flagSYN, mss(1460)...), 1260},
		{"IPv6", synWith(a6, b6, flagSYN, mss(1440)...), 1240},
		{"the answer", synWith(a4, b4, flagSYN|flagACK, mss(1380)...), 1260},
		{"across two words", synWith(a4, b4, flagSYN, append(nops(1), mss(1460)...)...), 1260},
		{"after another option", synWith(a6, b6, flagSYN, append([]byte{4, 2, 3, 3, 7}, mss(65535)...)...), 1240},
		{"small already", synWith(a4, b4, flagSYN, mss(536)...), 0},
		{"not a SYN", synWith(a4, b4, flagACK, mss(1460)...), 0},
		{"none", synWith(a4, b4, flagSYN), 0},
		{"after the end", synWith(a4, b4, flagSYN, append([]byte{0}, mss(1460)...)...), 0},
		{"an option that is too long", synWith(a4, b4, flagSYN, 8, 200, 2, 4), 0},
	} {
		was := slices.Clone(c.b)
		pk, ok := parse(c.b)
		if !ok {
			t.Fatalf("%s: not parsed", c.name)
		}
		clampMSS(c.b, pk.l4, 1300)
		if sum := transportSum(pk.src, pk.dst, protoTCP, c.b[pk.l4:]); sum != 0 {
			t.Errorf("%s: checksum off by %#x", c.name, sum)
		}
		if c.want == 0 {
			if !slices.Equal(was, c.b) {
				t.Errorf("%s: changed", c.name)
			}
			continue
		}
		if !slices.ContainsFunc([]int{0, 1, 5}, func(at int) bool {
			o := c.b[pk.l4+20+at:]
			return o[0] == 2 && o[1] == 4 && binary.BigEndian.Uint16(o[2:]) == c.want
		}) {
			t.Errorf("%s: % x", c.name, c.b[pk.l4+20:])
		}
	}
}

// The tunnel follows the host's line while it runs, and a setting by hand goes before it.
func TestMTUFollowsTheLine(t *testing.T) {
	needNamespace(t)
	run(t, "ip link add line0 type veth peer name line1")
	defer run(t, "ip link del line0")
	run(t, "ip link set line0 up")
	run(t, "ip addr add 203.0.113.1/24 dev line0")
	run(t, "ip route add default via 203.0.113.2 dev line0")
	g := testGateway(t)
	p := newPlane(t, dataplane.Config{}, dataplane.State{Gateway: g})
	expect := func(mtu uint32) {
		t.Helper()
		l := linkEndpoint{p.link}
		for end := time.Now().Add(5 * time.Second); l.MTU() != mtu; time.Sleep(10 * time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("the tunnel's MTU is %d, want %d", l.MTU(), mtu)
			}
		}
	}
	expect(1420)
	for _, c := range []struct {
		line string
		mtu  uint32
	}{{"1440", 1380}, {"1300", 1280}, {"9001", 1420}} {
		run(t, "ip link set line0 mtu "+c.line)
		expect(c.mtu)
	}
	g.MTU = 1300
	if err := p.Set(t.Context(), dataplane.State{Gateway: g}); err != nil {
		t.Fatal(err)
	}
	expect(1300)
	run(t, "ip link set line0 mtu 1500")
	g.MTU, g.Network = 0, []netip.Prefix{network[0]}
	if err := p.Set(t.Context(), dataplane.State{Gateway: g}); err != nil {
		t.Fatal(err)
	}
	run(t, "ip link set line0 mtu 1000")
	expect(940) // no IPv6 inside: nothing needs 1280
}
