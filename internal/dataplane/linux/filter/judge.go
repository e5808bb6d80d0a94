package filter

import (
	"time"

	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"vpnd/internal/dataplane/linux/nft"
)

// Every packet of a flow, of both directions, is judged by where the flow began and by where
// it really goes, which is where its answers come from: somebody else's table may have
// rewritten its destination. What asked for a service address alone is judged by that, and by
// the port that it asked for. So a reply lives exactly as long as what it answers, and so
// does an ICMP error about it.

// fromTunnel judges what the tunnel's interface brings.
func (b *builder) fromTunnel(f nft.IP) {
	name, inside, portal := "tunnel"+f.Suffix, "inside"+f.Suffix, "portal"+f.Suffix
	b.chain(name, inside, portal)
	b.rule(name, nft.CtState(expr.CtStateBitINVALID|expr.CtStateBitUNTRACKED), nft.One(nft.Counter(), nft.Drop()))
	b.rule(name, isCut(), nft.One(b.goTo("cut")))
	b.rule(name, b.leaving(f, f.LoadSrc), nft.One(nft.Drop()))
	for _, p := range b.prefixes(f) {
		b.rule(name, f.IsProto(), f.In(f.LoadSrc, p, false), nft.One(b.goTo(inside)))
	}
	b.rule(name, nft.One(nft.Counter(), nft.Drop()))

	b.rule(inside, startsMidstream(), nft.One(b.goTo("refuse")))
	for _, a := range b.addrs(f) {
		b.rule(inside, nft.L4Proto(unix.IPPROTO_TCP), dport(b.portalPort), f.IsProto(), f.In(f.LoadDst, host(a), false),
			nft.CtStatus(nft.StatusDNAT), nft.One(b.goTo(portal)))
	}
	b.neverUpper(inside, f, b.goTo("refuse"))
	b.rule(inside, nft.One(b.jump("judge"+f.Suffix)))
	b.rule(inside, nft.One(b.goTo("refuse")))

	b.rule(portal, flowMark(expr.CmpOpEq, flowPortal), nft.One(b.goTo("permit")))
	b.rule(portal, flowMark(expr.CmpOpEq, 0), setFlowMark(flowPortal), nft.One(b.goTo("permit")))
	b.rule(portal, nft.One(nft.Counter(), nft.Drop()))
}

// fromOutside judges what other interfaces bring for the tunnel's network.
func (b *builder) fromOutside(f nft.IP) {
	name := "outside" + f.Suffix
	b.chain(name)
	b.quick(name, f, f.CtSrcReg)
	b.rule(name, nft.CtState(expr.CtStateBitINVALID|expr.CtStateBitUNTRACKED), nft.One(nft.Counter(), nft.Drop()))
	b.rule(name, isCut(), nft.One(b.goTo("cut")))
	b.neverUpper(name, f, nft.Counter(), nft.Drop())
	b.rule(name, startsMidstream(), nft.One(b.goTo("refuse")))
	b.rule(name, nft.One(b.jump("judge"+f.Suffix)))
	// A stranger learns nothing; the other end of a flow learns that it is dead.
	b.rule(name, nft.CtState(expr.CtStateBitNEW), nft.One(nft.Counter(), nft.Drop()))
	b.rule(name, nft.One(b.goTo("refuse")))
}

// fromHost judges what the gateway itself sends into the tunnel.
func (b *builder) fromHost(f nft.IP) {
	name := "towards" + f.Suffix
	b.chain(name)
	b.rule(name, nft.L4Proto(unix.IPPROTO_TCP), tcpReset(), nft.One(nft.Accept()))
	b.rule(name, b.leaving(f, f.LoadDst), nft.One(nft.Drop()))
	b.rule(name, flowMark(expr.CmpOpEq, flowPortal), nft.One(nft.Accept()))
	if f.NFProto == unix.NFPROTO_IPV4 {
		for _, typ := range []byte{3, 11, 12} { // RFC 792: unreachable, time exceeded, parameter problem
			b.rule(name, nft.L4Proto(unix.IPPROTO_ICMP), nft.L4(0, expr.CmpOpEq, typ), nft.One(nft.Accept()))
		}
	} else {
		b.rule(name, nft.L4Proto(unix.IPPROTO_ICMPV6), nft.L4(0, expr.CmpOpLt, 128), nft.One(nft.Accept())) // RFC 4443: errors
	}
	b.quick(name, f, f.CtSrcReg)
	b.rule(name, nft.CtState(expr.CtStateBitINVALID|expr.CtStateBitUNTRACKED), nft.One(nft.Counter(), nft.Drop()))
	b.rule(name, isCut(), nft.One(b.goTo("cut")))
	b.neverUpper(name, f, b.goTo("refuse"))
	b.rule(name, startsMidstream(), nft.One(b.goTo("refuse")))
	b.rule(name, nft.One(b.jump("judge"+f.Suffix)))
	b.rule(name, nft.One(b.goTo("refuse")))
}

// again judges a flow's first packet once more where its destination was rewritten, which
// may have happened behind the first verdict: nat chains have any priority.
func (b *builder) again(f nft.IP) {
	b.chain("again" + f.Suffix)
	b.againAsked("again"+f.Suffix, f)
	b.rule("again"+f.Suffix, nft.One(b.jump("judge"+f.Suffix)))
	b.rule("again"+f.Suffix, nft.One(nft.Counter(), nft.Drop()))
}

// rewritten matches the first packet of a flow whose destination somebody has rewritten.
func rewritten() []nft.Stmt {
	return nft.Join(nft.CtState(expr.CtStateBitNEW|expr.CtStateBitRELATED), nft.CtStatus(nft.StatusDNAT))
}

// startsMidstream matches TCP packets that would start a flow without being a SYN.
func startsMidstream() []nft.Stmt {
	return nft.Join(
		nft.CtState(expr.CtStateBitNEW),
		nft.L4Proto(unix.IPPROTO_TCP),
		nft.One(nft.Payload(expr.PayloadBaseTransportHeader, 13, 1, nft.R0),
			nft.Bitwise(nft.R0, 1, []byte{0x17}, []byte{0}), // FIN, SYN, RST, ACK
			nft.Cmp(expr.CmpOpNeq, nft.R0, []byte{0x02})),
	)
}

func flowMark(op expr.CmpOp, mark uint32) []nft.Stmt {
	return []nft.Stmt{nft.Ct(expr.CtKeyMARK, nft.R0), nft.Cmp(op, nft.R0, nft.Native32(mark))}
}

func setFlowMark(mark uint32) []nft.Stmt {
	return []nft.Stmt{nft.Immediate(nft.R0, nft.Native32(mark)), nft.SetCt(expr.CtKeyMARK, nft.R0)}
}

// judge accepts a permitted packet by "permit" and returns otherwise.
func (b *builder) judge(f nft.IP) {
	judge, key := "judge"+f.Suffix, "key"+f.Suffix
	b.chain(judge, key)
	b.rule(judge, nft.One(b.jump(key)))
	b.rule(judge, nft.One(b.goTo("allow")))

	zone := func(reg uint32, set string, load ...nft.Stmt) []nft.Stmt {
		return append(load, b.lookupMap(set, reg, reg), nft.SetMeta(expr.MetaKeyPRIORITY, reg), b.goTo("ports"))
	}
	b.keyAsked(key, f)
	if b.self {
		for _, p := range b.prefixes(f) {
			b.rule(key, f.In(f.CtDstReg, p, false), zone(nft.R0, selfSet(f), f.CtSrcReg(nft.R0), f.CtDstReg(f.After(nft.R0))))
		}
	}
	b.rule(key, zone(nft.R0, zoneSet(f), f.CtDstReg(nft.R0)))
	b.rule(key, zone(nft.R0, zoneNetSet(f), f.CtDstReg(nft.R0)))
	b.rule(key, b.setPriority0())
}

// permitFlow leads packets whose source may send them to the chain end.
func (b *builder) permitFlow(f nft.IP, chain, end string) {
	b.chain(chain)
	for _, a := range b.addrs(f) {
		b.rule(chain, f.In(f.CtDstReg, host(a), false), nft.One(b.goTo(end)))
	}
	// From device to device: the other end must be signed in as well.
	for _, p := range b.prefixes(f) {
		b.rule(chain, f.In(f.CtDstReg, p, false), nft.One(f.CtDstReg(nft.R0), b.lookup(sessionSet(f), nft.R0), b.goTo("permit")))
		b.rule(chain, f.In(f.CtDstReg, p, false), nft.One(nft.Return()))
	}
	b.rule(chain, nft.One(b.goTo(end)))
}

// allow asks whether the role may use the class, and at which freshness. A flow carries
// as its mark the serial of the code that began the chain of codes in which it was
// opened: its source's, or, when the source is no device, its destination's. When the
// chain has broken or the session has ended, the element that pairs address and mark is
// gone, and a later code brings another serial.
func (b *builder) allow() {
	ask := func(set, chain string) {
		b.chain(chain)
		b.rule("allow", nft.One(nft.Meta(expr.MetaKeyPRIORITY, nft.R0), b.lookup(set, nft.R0), b.jump(chain)))
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
	b.rule(off, flowMark(expr.CmpOpNeq, 0), nft.One(b.goTo("permit")))
	b.rule(off, notNew(), nft.One(nft.Return()))
	if len(b.layout.fresh) > 0 {
		for _, f := range b.families() {
			b.rule(off, b.open(f, f.CtSrcReg, b.layout.fresh[0]), nft.One(b.goTo("permit")))
		}
	}
	b.rule(off, setFlowMark(flowOff), nft.One(b.goTo("permit")))
}

// open marks a flow with the serial that its device's new flows get.
func (b *builder) open(f nft.IP, device func(uint32) nft.Stmt, d time.Duration) []nft.Stmt {
	return nft.One(device(nft.R0), b.lookupMap(startSet(f, d), nft.R0, nft.R0), nft.SetCt(expr.CtKeyMARK, nft.R0))
}

// fresh asks for a code that is fresh enough, in the chain name, or gives the flow one, in
// the chain open. What is permitted goes by chains whose names end in suffix to the chain end.
func (b *builder) fresh(d time.Duration, name, open, suffix, end string) {
	b.chain(open)
	b.rule(name, flowMark(expr.CmpOpEq, 0), nft.One(b.goTo(open)))
	b.rule(open, notNew(), nft.One(nft.Return()))
	for _, f := range b.families() {
		permit := "permit" + f.Suffix + suffix
		b.permitFlow(f, permit, end)
		live := func(device func(uint32) nft.Stmt) []nft.Stmt {
			return nft.One(device(nft.R0), nft.Ct(expr.CtKeyMARK, f.After(nft.R0)), b.lookup(liveSet(f, d), nft.R0), b.goTo(permit))
		}
		b.rule(name, live(f.CtSrcReg))
		b.rule(open, b.open(f, f.CtSrcReg, d), nft.One(b.goTo(permit)))
		// The gateway's own addresses lie in the tunnel's network, and are no device's.
		for _, a := range b.addrs(f) {
			b.rule(name, f.In(f.CtSrcReg, host(a), false), live(f.CtDstReg))
			b.rule(open, f.In(f.CtSrcReg, host(a), false), b.open(f, f.CtDstReg, d), nft.One(b.goTo(permit)))
		}
		for _, p := range b.prefixes(f) {
			b.rule(name, f.In(f.CtSrcReg, p, false), nft.One(nft.Return()))
			b.rule(open, f.In(f.CtSrcReg, p, false), nft.One(nft.Return()))
		}
		b.rule(name, live(f.CtDstReg))
		b.rule(open, b.open(f, f.CtDstReg, d), nft.One(b.goTo(permit)))
	}
}

// notNew matches packets of flows that exist.
func notNew() []nft.Stmt {
	return []nft.Stmt{
		nft.Ct(expr.CtKeySTATE, nft.R0),
		nft.Bitwise(nft.R0, 4, nft.Native32(expr.CtStateBitNEW), make([]byte, 4)),
		nft.Cmp(expr.CmpOpEq, nft.R0, make([]byte, 4)),
	}
}
