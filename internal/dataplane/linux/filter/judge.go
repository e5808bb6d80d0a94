package filter

import (
	"time"

	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// Every packet of a flow, of both directions, is judged by the flow's original tuple, so
// a reply lives exactly as long as what it answers, and so does an ICMP error about it.

// fromTunnel judges what the tunnel's interface brings.
func (b *builder) fromTunnel(f ip) {
	name, inside, portal := "tunnel"+f.suffix, "inside"+f.suffix, "portal"+f.suffix
	b.chain(name, inside, portal)
	b.rule(name, ctState(expr.CtStateBitINVALID|expr.CtStateBitUNTRACKED), one(counter(), drop()))
	for _, p := range b.prefixes(f) {
		b.rule(name, f.isProto(), f.in(f.loadSrc, p, false), one(b.goTo(inside)))
	}
	b.rule(name, one(counter(), drop()))

	b.rule(inside, startsMidstream(), one(b.goTo("refuse")))
	for _, a := range b.addrs(f) {
		b.rule(inside, l4proto(unix.IPPROTO_TCP), dport(b.portalPort), f.isProto(), f.in(f.loadDst, host(a), false),
			ctStatus(statusDNAT), one(b.goTo(portal)))
	}
	b.rule(inside, one(b.jump("judge"+f.suffix)))
	b.rule(inside, one(b.goTo("refuse")))

	b.rule(portal, flowMark(expr.CmpOpEq, flowPortal), one(b.goTo("permit")))
	b.rule(portal, flowMark(expr.CmpOpEq, 0), setFlowMark(flowPortal), one(b.goTo("permit")))
	b.rule(portal, one(counter(), drop()))
}

// fromOutside judges what other interfaces bring for the tunnel's network.
func (b *builder) fromOutside(f ip) {
	name := "outside" + f.suffix
	b.chain(name)
	b.quick(name, f, f.ctSrcReg)
	b.rule(name, ctState(expr.CtStateBitINVALID|expr.CtStateBitUNTRACKED), one(counter(), drop()))
	b.rule(name, startsMidstream(), one(b.goTo("refuse")))
	b.rule(name, one(b.jump("judge"+f.suffix)))
	// A stranger learns nothing; the other end of a flow learns that it is dead.
	b.rule(name, ctState(expr.CtStateBitNEW), one(counter(), drop()))
	b.rule(name, one(b.goTo("refuse")))
}

// fromHost judges what the gateway itself sends into the tunnel.
func (b *builder) fromHost(f ip) {
	name := "towards" + f.suffix
	b.chain(name)
	b.rule(name, flowMark(expr.CmpOpEq, flowPortal), one(accept()))
	if f.nfproto == unix.NFPROTO_IPV4 {
		for _, typ := range []byte{3, 11, 12} { // RFC 792: unreachable, time exceeded, parameter problem
			b.rule(name, l4proto(unix.IPPROTO_ICMP), l4(0, expr.CmpOpEq, typ), one(accept()))
		}
	} else {
		b.rule(name, l4proto(unix.IPPROTO_ICMPV6), l4(0, expr.CmpOpLt, 128), one(accept())) // RFC 4443: errors
	}
	b.rule(name, l4proto(unix.IPPROTO_TCP), tcpReset(), one(accept()))
	b.quick(name, f, f.ctSrcReg)
	b.rule(name, ctState(expr.CtStateBitINVALID|expr.CtStateBitUNTRACKED), one(counter(), drop()))
	b.rule(name, startsMidstream(), one(b.goTo("refuse")))
	b.rule(name, one(b.jump("judge"+f.suffix)))
	b.rule(name, one(b.goTo("refuse")))
}

// startsMidstream matches TCP packets that would start a flow without being a SYN.
func startsMidstream() []stmt {
	return join(
		ctState(expr.CtStateBitNEW),
		l4proto(unix.IPPROTO_TCP),
		one(payload(expr.PayloadBaseTransportHeader, 13, 1, r0),
			bitwise(r0, 1, []byte{0x17}, []byte{0}), // FIN, SYN, RST, ACK
			cmp(expr.CmpOpNeq, r0, []byte{0x02})),
	)
}

func flowMark(op expr.CmpOp, mark uint32) []stmt {
	return []stmt{ct(expr.CtKeyMARK, r0), cmp(op, r0, native32(mark))}
}

func setFlowMark(mark uint32) []stmt {
	return []stmt{immediate(r0, native32(mark)), setCt(expr.CtKeyMARK, r0)}
}

// judge accepts a permitted packet by "permit" and returns otherwise.
func (b *builder) judge(f ip) {
	judge, key := "judge"+f.suffix, "key"+f.suffix
	b.chain(judge, key)
	b.rule(judge, one(b.jump(key)))
	b.rule(judge, one(b.goTo("allow")))

	zone := func(reg uint32, set string, load ...stmt) []stmt {
		return append(load, b.lookupMap(set, reg, reg), setMeta(expr.MetaKeyPRIORITY, reg), b.goTo("ports"))
	}
	if b.self {
		for _, p := range b.prefixes(f) {
			b.rule(key, f.in(f.ctDstReg, p, false), zone(r0, selfSet(f), f.ctSrcReg(r0), f.ctDstReg(f.after(r0))))
		}
	}
	b.rule(key, zone(r0, zoneSet(f), f.ctDstReg(r0)))
	b.rule(key, zone(r0, zoneNetSet(f), f.ctDstReg(r0)))
	b.rule(key, b.setPriority0())
}

// permitFlow leads packets whose source may send them to the chain end.
func (b *builder) permitFlow(f ip, chain, end string) {
	b.chain(chain)
	for _, a := range b.addrs(f) {
		b.rule(chain, f.in(f.ctDstReg, host(a), false), one(b.goTo(end)))
	}
	// From device to device: the other end must be signed in as well.
	for _, p := range b.prefixes(f) {
		b.rule(chain, f.in(f.ctDstReg, p, false), one(f.ctDstReg(r0), b.lookup(sessionSet(f), r0), b.goTo("permit")))
		b.rule(chain, f.in(f.ctDstReg, p, false), one(back()))
	}
	b.rule(chain, one(b.goTo(end)))
}

// allow asks whether the role may use the class, and at which freshness. A flow carries
// as its mark the serial of the code that began the chain of codes in which it was
// opened: its source's, or, when the source is no device, its destination's. When the
// chain has broken or the session has ended, the element that pairs address and mark is
// gone, and a later code brings another serial.
func (b *builder) allow() {
	ask := func(set, chain string) {
		b.chain(chain)
		b.rule("allow", one(meta(expr.MetaKeyPRIORITY, r0), b.lookup(set, r0), b.jump(chain)))
	}
	if b.off {
		ask(allowSet(0), "off")
		b.offRules("off")
	}
	for i, d := range b.layout.fresh {
		at := "_" + freshName(d)
		ask(allowSet(d), "fresh"+at)
		b.chain("known" + at)
		b.note("known"+at, i)
		b.fresh(d, "fresh"+at, "open"+at, at, "known"+at)
		ask(timedSet(d), "timed"+at)
		b.fresh(d, "timed"+at, "open_timed"+at, "_timed"+at, "permit")
	}
}

// offRules permit without a session. The flow is a session's nevertheless if there is
// one, so that a later policy may ask for it.
func (b *builder) offRules(off string) {
	b.rule(off, flowMark(expr.CmpOpNeq, 0), one(b.goTo("permit")))
	b.rule(off, notNew(), one(back()))
	if len(b.layout.fresh) > 0 {
		for _, f := range b.families() {
			b.rule(off, b.open(f, f.ctSrcReg, b.layout.fresh[0]), one(b.goTo("permit")))
		}
	}
	b.rule(off, setFlowMark(flowOff), one(b.goTo("permit")))
}

// open marks a flow with the serial that its device's new flows get.
func (b *builder) open(f ip, device func(uint32) stmt, d time.Duration) []stmt {
	return one(device(r0), b.lookupMap(startSet(f, d), r0, r0), setCt(expr.CtKeyMARK, r0))
}

// fresh asks for a code that is fresh enough, in the chain name, or gives the flow one, in
// the chain open. What is permitted goes by chains whose names end in suffix to the chain end.
func (b *builder) fresh(d time.Duration, name, open, suffix, end string) {
	b.chain(open)
	b.rule(name, flowMark(expr.CmpOpEq, 0), one(b.goTo(open)))
	b.rule(open, notNew(), one(back()))
	for _, f := range b.families() {
		permit := "permit" + f.suffix + suffix
		b.permitFlow(f, permit, end)
		live := func(device func(uint32) stmt) []stmt {
			return one(device(r0), ct(expr.CtKeyMARK, f.after(r0)), b.lookup(liveSet(f, d), r0), b.goTo(permit))
		}
		b.rule(name, live(f.ctSrcReg))
		b.rule(open, b.open(f, f.ctSrcReg, d), one(b.goTo(permit)))
		// The gateway's own addresses lie in the tunnel's network, and are no device's.
		for _, a := range b.addrs(f) {
			b.rule(name, f.in(f.ctSrcReg, host(a), false), live(f.ctDstReg))
			b.rule(open, f.in(f.ctSrcReg, host(a), false), b.open(f, f.ctDstReg, d), one(b.goTo(permit)))
		}
		for _, p := range b.prefixes(f) {
			b.rule(name, f.in(f.ctSrcReg, p, false), one(back()))
			b.rule(open, f.in(f.ctSrcReg, p, false), one(back()))
		}
		b.rule(name, live(f.ctDstReg))
		b.rule(open, b.open(f, f.ctDstReg, d), one(b.goTo(permit)))
	}
}

// notNew matches packets of flows that exist.
func notNew() []stmt {
	return []stmt{
		ct(expr.CtKeySTATE, r0),
		bitwise(r0, 4, native32(expr.CtStateBitNEW), make([]byte, 4)),
		cmp(expr.CmpOpEq, r0, make([]byte, 4)),
	}
}
