package acltest

import (
	"math/rand/v2"
	"net/netip"
	"slices"
	"time"

	"vpnd/acl/rules"
)

// Addrs are the addresses at which something may change in a world, and those beside
// them: devices, the gateway, the ends of every prefix.
func (w *World) Addrs() []netip.Addr {
	var list []netip.Addr
	for _, s := range w.Subjects {
		list = append(list, s.Addrs...)
	}
	list = append(list, w.Options.Gateway...)
	for _, addrs := range w.Options.Services {
		list = append(list, addrs...)
		list = append(list, addrs[0].Next())
	}
	edges := func(s string) {
		p, err := netip.ParsePrefix(s)
		if err != nil {
			a := netip.MustParseAddr(s)
			p = netip.PrefixFrom(a, a.BitLen())
		}
		first, last := p.Addr(), lastOf(p)
		list = append(list, first, last)
		for _, a := range []netip.Addr{first.Prev(), last.Next()} {
			if a.IsValid() {
				list = append(list, a)
			}
		}
	}
	for _, p := range prefixes {
		edges(p)
	}
	for _, n := range w.Options.Network {
		edges(n.String())
	}
	slices.SortFunc(list, netip.Addr.Compare)
	return slices.Compact(list)
}

func lastOf(p netip.Prefix) netip.Addr {
	b := p.Addr().AsSlice()
	for i := p.Bits(); i < len(b)*8; i++ {
		b[i/8] |= 0x80 >> (i % 8)
	}
	a, _ := netip.AddrFromSlice(b)
	return a
}

var (
	edgePorts  = []uint16{1, 22, 21, 23, 79, 80, 81, 84, 85, 90, 91, 92, 99, 100, 101, 442, 443, 444, 65534, 65535}
	edgeProtos = []uint8{1, 6, 6, 6, 17, 17, 47, 58, 132, 50}
)

// Packet makes a random packet at the boundaries of a world, with random sessions
// around now. Its ends are of one family. Most packets are aimed at a grant, else nearly
// all would be refused.
func (w *World) Packet(rng *rand.Rand, addrs []netip.Addr, now time.Time) rules.Packet {
	p := rules.Packet{Src: addrs[rng.IntN(len(addrs))], Proto: edgeProtos[rng.IntN(len(edgeProtos))]}
	for p.Dst = addrs[rng.IntN(len(addrs))]; p.Dst.Is4() != p.Src.Is4(); {
		p.Dst = addrs[rng.IntN(len(addrs))]
	}
	p.DstPort = edgePorts[rng.IntN(len(edgePorts))]
	if len(w.Grants) > 0 && rng.IntN(4) > 0 {
		g := w.Grants[rng.IntN(len(w.Grants))]
		for range 40 {
			q := p
			q.Src, q.Dst = addrs[rng.IntN(len(addrs))], addrs[rng.IntN(len(addrs))]
			src, dst := w.deviceAt(q.Src), w.deviceAt(q.Dst)
			if q.Src.Is4() != q.Dst.Is4() || !w.from(g, q.Src, src) || !slices.ContainsFunc(g.Dst, func(t string) bool { return w.to(t, q, src, dst) }) {
				continue
			}
			p.Src, p.Dst = q.Src, q.Dst
			for range 40 {
				q.Proto, q.DstPort = edgeProtos[rng.IntN(len(edgeProtos))], edgePorts[rng.IntN(len(edgePorts))]
				if w.grants(g, q, src, dst) {
					break
				}
			}
			p = q
			break
		}
	}
	if p.Proto != 6 && p.Proto != 17 && p.Proto != 132 {
		p.DstPort = 0
	}
	if w.deviceAt(p.Src) != nil {
		p.SrcSession = w.session(rng, now)
	}
	if w.deviceAt(p.Dst) != nil {
		p.DstSession = w.session(rng, now)
	}
	return p
}

// session makes a session that is live more often than not, with a code as old as the
// boundaries of the policies' freshness.
func (w *World) session(rng *rand.Rand, now time.Time) rules.Session {
	if rng.IntN(10) == 0 {
		return rules.Session{}
	}
	ages := []time.Duration{0, time.Second - 1, time.Second, 15*time.Minute - 1, 15 * time.Minute, time.Hour - 1, time.Hour, 11 * time.Hour}
	ends := []time.Duration{-time.Hour, 0, 1, time.Minute, time.Hour, time.Hour, 2 * time.Hour, 6 * time.Hour, 6 * time.Hour, 7 * time.Hour}
	return rules.Session{Until: now.Add(ends[rng.IntN(len(ends))]), Code: now.Add(-ages[rng.IntN(len(ages))])}
}

// Times are instants at which something may change in a world, and the ones just before.
func (w *World) Times(rng *rand.Rand) []time.Time {
	list := []time.Time{Now}
	for _, g := range w.Grants {
		if !g.Expires.IsZero() {
			list = append(list, g.Expires, g.Expires.Add(-1))
		}
	}
	for range 4 {
		t := Now.Add(time.Duration(rng.IntN(24*400)) * time.Hour) // whole hours: where windows begin and end
		list = append(list, t, t.Add(-1))
	}
	return list
}
