package netstack

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"testing"
)

// Packets for tests. at is "addr:port".

func ap(s string) netip.AddrPort { return netip.MustParseAddrPort(s) }

func tcpPacket(src, dst string, flags byte, payload string) []byte {
	s, d := ap(src), ap(dst)
	t := make([]byte, 20, 20+len(payload))
	binary.BigEndian.PutUint16(t, s.Port())
	binary.BigEndian.PutUint16(t[2:], d.Port())
	binary.BigEndian.PutUint32(t[4:], 1000)
	binary.BigEndian.PutUint32(t[8:], 2000)
	t[12], t[13] = 5<<4, flags
	t = append(t, payload...)
	binary.BigEndian.PutUint16(t[16:], transportSum(s.Addr(), d.Addr(), protoTCP, t))
	return ipPacket(s.Addr(), d.Addr(), protoTCP, t)
}

func udpPacket(src, dst, payload string) []byte {
	s, d := ap(src), ap(dst)
	t := make([]byte, 8, 8+len(payload))
	binary.BigEndian.PutUint16(t, s.Port())
	binary.BigEndian.PutUint16(t[2:], d.Port())
	binary.BigEndian.PutUint16(t[4:], uint16(8+len(payload)))
	t = append(t, payload...)
	binary.BigEndian.PutUint16(t[6:], transportSum(s.Addr(), d.Addr(), protoUDP, t))
	return ipPacket(s.Addr(), d.Addr(), protoUDP, t)
}

// sctpPacket is a common header (RFC 9260) with nothing behind it.
func sctpPacket(src, dst string) []byte {
	s, d := ap(src), ap(dst)
	t := make([]byte, 12)
	binary.BigEndian.PutUint16(t, s.Port())
	binary.BigEndian.PutUint16(t[2:], d.Port())
	return ipPacket(s.Addr(), d.Addr(), protoSCTP, t)
}

// echoPacket's port of src is the identifier.
func echoPacket(src string, dst string) []byte {
	s, d := ap(src), netip.MustParseAddr(dst)
	m := make([]byte, 16)
	binary.BigEndian.PutUint16(m[4:], s.Port())
	proto := uint8(protoICMP)
	if m[0] = 8; d.Is6() {
		m[0], proto = 128, protoICMPv6
	}
	return ipPacket(s.Addr(), d, proto, m)
}

// fragmented4 cuts an IPv4 packet into two fragments.
func fragmented4(b []byte, at int) (first, later []byte) {
	first = bytes.Clone(b[:20+at])
	binary.BigEndian.PutUint16(first[2:], uint16(len(first)))
	binary.BigEndian.PutUint16(first[4:], 77)
	binary.BigEndian.PutUint16(first[6:], 0x2000)
	later = append(bytes.Clone(b[:20]), b[20+at:]...)
	binary.BigEndian.PutUint16(later[2:], uint16(len(later)))
	binary.BigEndian.PutUint16(later[4:], 77)
	binary.BigEndian.PutUint16(later[6:], uint16(at/8))
	return first, later
}

func edit(b []byte, f func([]byte)) []byte {
	b = bytes.Clone(b)
	f(b)
	return b
}

func TestParse(t *testing.T) {
	syn4 := tcpPacket("10.77.0.2:1000", "192.0.2.1:443", flagSYN, "")
	syn6 := tcpPacket("[fd77::2]:1000", "[2001:db8::1]:443", flagSYN, "")
	first, later := fragmented4(udpPacket("10.77.0.2:5", "192.0.2.1:53", string(make([]byte, 100))), 56)
	for _, test := range []struct {
		name string
		b    []byte
		ok   bool
		want flowKey
	}{
		{"tcp4", syn4, true, flowKey{ap("10.77.0.2:1000"), ap("192.0.2.1:443"), protoTCP}},
		{"tcp6", syn6, true, flowKey{ap("[fd77::2]:1000"), ap("[2001:db8::1]:443"), protoTCP}},
		{"echo4", echoPacket("10.77.0.2:7", "192.0.2.1"), true, flowKey{ap("10.77.0.2:7"), ap("192.0.2.1:0"), protoICMP}},
		{"echo6", echoPacket("[fd77::2]:7", "fd77::1"), true, flowKey{ap("[fd77::2]:7"), ap("[fd77::1]:0"), protoICMPv6}},
		{"padding is cut off", append(bytes.Clone(syn4), 0, 0, 0), true, flowKey{ap("10.77.0.2:1000"), ap("192.0.2.1:443"), protoTCP}},
		{"first fragment", first, true, flowKey{ap("10.77.0.2:5"), ap("192.0.2.1:53"), protoUDP}},
		{"later fragment", later, true, flowKey{ap("10.77.0.2:0"), ap("192.0.2.1:0"), protoUDP}},
		{"empty", nil, false, flowKey{}},
		{"no header", syn4[:19], false, flowKey{}},
		{"shorter than it says", syn4[:39], false, flowKey{}},
		{"version 5", edit(syn4, func(b []byte) { b[0] = 0x55 }), false, flowKey{}},
		{"options", edit(syn4, func(b []byte) { b[0] = 0x46 }), false, flowKey{}},
		{"total length below the header", edit(syn4, func(b []byte) { b[3] = 19 }), false, flowKey{}},
		{"data offset beyond the end", edit(syn4, func(b []byte) { b[32] = 0xf0 }), false, flowKey{}},
		{"data offset too small", edit(syn4, func(b []byte) { b[32] = 0x40 }), false, flowKey{}},
		{"a later fragment over the header", edit(later, func(b []byte) { b[7] = 1 }), false, flowKey{}},
		{"a tiny first fragment", edit(syn4[:36], func(b []byte) { b[3] = 36; b[6] = 0x20 }), false, flowKey{}},
		{"hop-by-hop options", edit(syn6, func(b []byte) { b[6] = 0 }), true, flowKey{ap("[fd77::2]:0"), ap("[2001:db8::1]:0"), 0}},
		{"mapped source", edit(syn6, func(b []byte) { copy(b[8:], make([]byte, 10)); b[18], b[19] = 255, 255 }), false, flowKey{}},
		{"mapped destination", edit(syn6, func(b []byte) { copy(b[24:], make([]byte, 10)); b[34], b[35] = 255, 255 }), false, flowKey{}},
		{"ICMP of the other family", edit(syn6, func(b []byte) { b[6] = protoICMP }), false, flowKey{}},
	} {
		pk, ok := parse(test.b)
		if ok != test.ok {
			t.Errorf("%s: ok = %v, want %v", test.name, ok, test.ok)
			continue
		}
		if ok && pk.key() != test.want {
			t.Errorf("%s: key = %v, want %v", test.name, pk.key(), test.want)
		}
	}
}

func TestOpens(t *testing.T) {
	for _, test := range []struct {
		b    []byte
		want bool
	}{
		{tcpPacket("10.77.0.2:1", "10.77.0.3:2", flagSYN, ""), true},
		{tcpPacket("10.77.0.2:1", "10.77.0.3:2", flagSYN|flagPSH, "x"), true},
		{tcpPacket("10.77.0.2:1", "10.77.0.3:2", flagSYN|flagACK, ""), false},
		{tcpPacket("10.77.0.2:1", "10.77.0.3:2", flagSYN|flagFIN, ""), false},
		{tcpPacket("10.77.0.2:1", "10.77.0.3:2", flagSYN|flagRST, ""), false},
		{tcpPacket("10.77.0.2:1", "10.77.0.3:2", flagACK, "x"), false},
		{tcpPacket("10.77.0.2:1", "10.77.0.3:2", flagRST, ""), false},
		{tcpPacket("10.77.0.2:1", "10.77.0.3:2", 0, ""), false},
		{udpPacket("10.77.0.2:1", "10.77.0.3:2", ""), true},
		{echoPacket("10.77.0.2:1", "10.77.0.3"), true},
		{edit(echoPacket("10.77.0.2:1", "10.77.0.3"), func(b []byte) { b[20] = 0 }), false},
		{edit(echoPacket("10.77.0.2:1", "10.77.0.3"), func(b []byte) { b[20] = 5 }), false},
		{edit(echoPacket("[fd77::2]:1", "fd77::3"), func(b []byte) { b[40] = 129 }), false},
		{edit(echoPacket("[fd77::2]:1", "fd77::3"), func(b []byte) { b[40] = 135 }), false},
	} {
		pk, ok := parse(test.b)
		if !ok {
			t.Errorf("%x: not parsed", test.b)
		} else if got := pk.opens(); got != test.want {
			t.Errorf("%x opens = %v, want %v", test.b, got, test.want)
		}
	}
}

// What the answers to a packet look like is checked by the parser and by checksums that
// must come out as zero.
func TestAnswersAreWellFormed(t *testing.T) {
	for _, b := range [][]byte{
		tcpPacket("10.77.0.2:1000", "192.0.2.1:443", flagSYN, ""),
		tcpPacket("10.77.0.2:1000", "192.0.2.1:443", flagACK, "odd"),
		tcpPacket("[fd77::2]:1000", "[2001:db8::1]:443", flagSYN, "x"),
	} {
		pk, _ := parse(b)
		r, ok := parse(tcpReset(&pk))
		if !ok || r.key() != pk.reply() || r.flags&flagRST == 0 {
			t.Errorf("reset of %v is %v (ok %v)", pk.key(), r.key(), ok)
		}
		if sum := transportSum(r.src, r.dst, protoTCP, r.b[r.l4:]); sum != 0 {
			t.Errorf("reset of %v: checksum off by %#x", pk.key(), sum)
		}
	}
	for _, b := range [][]byte{echoPacket("10.77.0.2:7", "10.77.0.1"), echoPacket("[fd77::2]:7", "fd77::1")} {
		pk, _ := parse(b)
		r, ok := parse(echoReply(&pk))
		if !ok || r.kind != icmpEchoReply || r.reply() != pk.key() {
			t.Errorf("echo reply of %v is %v, kind %v", pk.key(), r.reply(), r.kind)
		}
		if r.dst.Is6() {
			if sum := transportSum(r.src, r.dst, protoICMPv6, r.b[r.l4:]); sum != 0 {
				t.Errorf("echo reply: checksum off by %#x", sum)
			}
		}
	}
}

func TestForwardedKeepsChecksum(t *testing.T) {
	for ttl := 2; ttl < 256; ttl++ {
		b := udpPacket("10.77.0.2:1", "10.77.0.3:2", "x")
		b[8] = byte(ttl)
		b[10], b[11] = 0, 0
		binary.BigEndian.PutUint16(b[10:], sum(b[:20]))
		pk, _ := parse(b)
		out := forwarded(&pk)
		if out[8] != byte(ttl-1) || sum(out[:20]) != 0 {
			t.Fatalf("TTL %d: became %d, checksum off by %#x", ttl, out[8], sum(out[:20]))
		}
	}
	for _, b := range [][]byte{
		edit(udpPacket("10.77.0.2:1", "10.77.0.3:2", "x"), func(b []byte) { b[8] = 1 }),
		edit(udpPacket("[fd77::2]:1", "[fd77::3]:2", "x"), func(b []byte) { b[7] = 1 }),
	} {
		pk, _ := parse(b)
		if forwarded(&pk) != nil {
			t.Errorf("a packet without a hop left was forwarded")
		}
	}
}

// sum is the Internet checksum, written the slow way of RFC 1071.
func sum(b []byte) uint16 {
	var s uint32
	for i := 0; i+1 < len(b); i += 2 {
		s += uint32(b[i])<<8 | uint32(b[i+1])
	}
	for s>>16 != 0 {
		s = s&0xffff + s>>16
	}
	return ^uint16(s)
}

func FuzzParse(f *testing.F) {
	first, later := fragmented4(udpPacket("10.77.0.2:5", "192.0.2.1:53", string(make([]byte, 100))), 56)
	for _, b := range [][]byte{
		tcpPacket("10.77.0.2:1000", "192.0.2.1:443", flagSYN, "hello"),
		tcpPacket("[fd77::2]:1000", "[2001:db8::1]:443", flagACK, ""),
		echoPacket("10.77.0.2:7", "192.0.2.1"), echoPacket("[fd77::2]:7", "fd77::1"), first, later,
		ipPacket(gateway4, gateway4, protoICMP, append([]byte{3, 3, 0, 0, 0, 0, 0, 0}, udpPacket("10.77.0.2:5", "10.77.0.3:53", "")...)),
	} {
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		pk, ok := parse(b)
		if !ok {
			return
		}
		if len(pk.b) > len(b) || pk.l4 > len(pk.b) || pk.src.Is4() != pk.dst.Is4() {
			t.Fatalf("%x: impossible: %d of %d bytes, transport at %d", b, len(pk.b), len(b), pk.l4)
		}
		if pk.kind == icmpError {
			pk.quoted()
		}
		forwarded(&pk)
		if pk.piece == laterPiece {
			return
		}
		if pk.proto == protoTCP {
			clampMSS(pk.b, pk.l4, 1280)
			if r, ok := parse(tcpReset(&pk)); !ok || r.key() != pk.reply() {
				t.Fatalf("%x: reset does not answer it", b)
			}
		}
		if pk.kind == icmpEcho {
			if r, ok := parse(echoReply(&pk)); !ok || r.reply() != pk.key() {
				t.Fatalf("%x: echo reply does not answer it", b)
			}
		}
	})
}
