package filter

import (
	"encoding/binary"
	"maps"
	"net/netip"
	"slices"

	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"vpnd/internal/dataplane/linux/nft"
)

// link is a chain of the table; hook is nil for one that is only jumped to.
type link struct {
	name string
	hook *nft.Hook
}

// Priorities: conntrack attaches a flow at -200, nat rewrites destinations at -100. Our
// redirect stands just before other tables' DNAT, the verdict just after nat, when the
// addresses of replies are the tunnel's again.
const (
	prioRedirect   = -105
	prioVerdict    = -90
	prioFilter     = 0
	prioMasquerade = 95
)

// builder writes the rules of a layout. A new policy gets sets and chains of its own, with
// another suffix to their names, beside the old ones: a packet that is halfway through
// the old rules in the moment of the change finds the old sets whole. Base chains have
// no suffix; their rules are replaced.
type builder struct {
	layout
	suffix string
	chains []link
	rules  []nft.Rule
}

func (b *builder) lookup(set string, reg uint32) nft.Stmt {
	return nft.Encode(&expr.Lookup{SourceRegister: reg, SetName: set + b.suffix})
}

// lookupMap replaces the key that begins at reg by the value found in dst; a miss ends the rule.
func (b *builder) lookupMap(set string, reg, dst uint32) nft.Stmt {
	return nft.Encode(&expr.Lookup{SourceRegister: reg, DestRegister: dst, IsDestRegSet: true, SetName: set + b.suffix})
}

// lookupVerdict goes where the map says; a miss ends the rule.
func (b *builder) lookupVerdict(set string, reg uint32) nft.Stmt {
	return nft.Encode(&expr.Lookup{SourceRegister: reg, DestRegister: 0, IsDestRegSet: true, SetName: set + b.suffix})
}

func (b *builder) jump(chain string) nft.Stmt {
	return nft.Encode(&expr.Verdict{Kind: expr.VerdictJump, Chain: chain + b.suffix})
}

func (b *builder) goTo(chain string) nft.Stmt {
	return nft.Encode(&expr.Verdict{Kind: expr.VerdictGoto, Chain: chain + b.suffix})
}

func (b *builder) base(name, kind string, num uint32, prio int32) {
	b.chains = append(b.chains, link{name, &nft.Hook{Kind: kind, Num: num, Priority: prio}})
}

func (b *builder) chain(names ...string) {
	for _, n := range names {
		b.chains = append(b.chains, link{name: n + b.suffix})
	}
}

func (b *builder) rule(chain string, parts ...[]nft.Stmt) {
	if !slices.ContainsFunc(b.chains, func(c link) bool { return c.hook != nil && c.name == chain }) {
		chain += b.suffix
	}
	b.rules = append(b.rules, nft.Rule{Chain: chain, Stmts: nft.Join(parts...)})
}

// build gives chains and rules. Chains are made before rules, so order is for readers.
func (l layout) build(suffix string, classes map[uint32]bool) ([]link, []nft.Rule) {
	b := &builder{layout: l, suffix: suffix}
	b.base("redirect", "nat", unix.NF_INET_PRE_ROUTING, prioRedirect)
	b.base("prerouting", "filter", unix.NF_INET_PRE_ROUTING, prioVerdict)
	b.base("input", "filter", unix.NF_INET_LOCAL_IN, prioFilter)
	b.base("forward", "filter", unix.NF_INET_FORWARD, prioFilter)
	b.base("output", "filter", unix.NF_INET_LOCAL_OUT, prioFilter)
	b.base("masquerade", "nat", unix.NF_INET_POST_ROUTING, prioMasquerade)
	b.chain("tunnel", "towards", "ports", "role", "allow", "permit", "refuse")
	b.told()
	b.hooks()
	b.role()
	b.ports("ports", nft.CtReply(unix.NFT_CT_PROTO_SRC, nft.R2))
	if b.services {
		b.chain(asked("ports"))
		b.ports(asked("ports"), nft.CtOriginal(unix.NFT_CT_PROTO_DST, nft.R2))
	}
	b.allow()
	b.verdicts()
	for _, f := range l.families() {
		b.captive(f)
		b.publish(f)
		b.fromTunnel(f)
		b.fromOutside(f)
		b.fromHost(f)
		b.judge(f)
		b.again(f)
	}
	for _, class := range slices.Sorted(maps.Keys(classes)) {
		b.classRules(class)
	}
	return b.chains, b.rules
}

// hooks are the base chains.
func (b *builder) hooks() {
	// What does not concern the tunnel leaves each hook after a few comparisons.
	for _, f := range b.families() {
		// By the packet's own source: what a device itself sends, and nothing else.
		b.quick("tunnel", f, f.LoadSrc, f.IsProto())
	}
	b.rule("prerouting", nft.IIF(expr.CmpOpEq, b.iface), nft.One(b.goTo("tunnel")))
	b.rule("prerouting", nft.IIF(expr.CmpOpEq, "lo"), nft.One(nft.Accept()))
	for _, f := range b.families() {
		for _, p := range b.prefixes(f) {
			b.rule("prerouting", f.IsProto(), f.In(f.LoadSrc, p, false), nft.One(nft.Counter(), nft.Drop()))
		}
		for _, a := range b.addrs(f) {
			b.rule("prerouting", f.IsProto(), f.In(f.LoadDst, host(a), false), nft.One(nft.Counter(), nft.Drop()))
		}
		for _, p := range b.prefixes(f) {
			b.rule("prerouting", f.IsProto(), f.In(f.LoadDst, p, false), nft.One(b.goTo("outside"+f.Suffix)))
		}
	}

	for _, f := range b.families() {
		for _, a := range b.addrs(f) {
			b.rule("input", nft.Join(nft.IIF(expr.CmpOpNeq, b.iface), nft.IIF(expr.CmpOpNeq, "lo")), f.IsProto(), f.In(f.LoadDst, host(a), false), nft.One(nft.Counter(), nft.Drop()))
		}
	}
	b.rule("input", nft.IIF(expr.CmpOpNeq, b.iface), nft.One(nft.Accept()))
	b.neighbours("input")
	for _, f := range b.families() {
		b.rule("input", f.IsProto(), rewritten(), flowMark(expr.CmpOpNeq, flowPortal), nft.One(b.goTo("again"+f.Suffix)))
	}
	b.rule("input", b.marked(), nft.One(nft.Accept()))
	b.rule("input", nft.One(nft.Counter(), nft.Drop()))

	others := nft.Join(nft.IIF(expr.CmpOpNeq, b.iface), nft.OIF(expr.CmpOpNeq, b.iface))
	if b.guard4 {
		b.rule("forward", others, nft.IP4.IsProto(), nft.One(nft.Counter(), nft.Drop()))
	}
	if b.guard6 {
		b.rule("forward", others, nft.IP6.IsProto(), nft.One(nft.Counter(), nft.Drop()))
	}
	b.rule("forward", b.marked(), nft.L4Proto(unix.IPPROTO_TCP), tcpFlags(0x02, 0x02), clampMSS())
	for _, f := range b.families() {
		b.rule("forward", nft.IIF(expr.CmpOpEq, b.iface), f.IsProto(), rewritten(), nft.One(b.goTo("again"+f.Suffix)))
		b.rule("forward", nft.OIF(expr.CmpOpEq, b.iface), f.IsProto(), rewritten(), nft.One(b.goTo("again"+f.Suffix)))
	}
	b.rule("forward", b.marked(), nft.One(nft.Accept()))
	b.rule("forward", others, nft.One(nft.Accept()))
	b.rule("forward", nft.One(nft.Counter(), nft.Drop()))

	// The gateway's tunnel addresses answer in the tunnel only, also to the host itself. A
	// socket that is bound to the tunnel's interface does not see to that: the kernel takes
	// what the host sends to its own address for having come in by that address's interface.
	if b.services { // the relay calls some targets of this host from these addresses
		b.rule("output", nft.OIF(expr.CmpOpEq, "lo"), nft.One(nft.Ct(expr.CtKeyDIRECTION, nft.R0), nft.Cmp(expr.CmpOpEq, nft.R0, []byte{1})), nft.One(nft.Accept()))
	}
	for _, f := range b.families() {
		for _, a := range b.addrs(f) {
			b.rule("output", nft.OIF(expr.CmpOpEq, "lo"), f.IsProto(), f.In(f.LoadDst, host(a), false), nft.L4Proto(unix.IPPROTO_TCP), nft.One(nft.RejectReset()))
			b.rule("output", nft.OIF(expr.CmpOpEq, "lo"), f.IsProto(), f.In(f.LoadDst, host(a), false), nft.L4Proto(unix.IPPROTO_UDP), nft.One(nft.Counter(), nft.Drop()))
		}
	}
	b.rule("output", nft.OIF(expr.CmpOpEq, "lo"), nft.One(nft.Accept()))
	b.rule("output", nft.OIF(expr.CmpOpEq, b.iface), nft.One(b.goTo("towards")))
	for _, f := range b.families() {
		for _, p := range b.prefixes(f) {
			// Resets by which a resource learns that a device's connection is dead.
			b.rule("output", f.IsProto(), f.In(f.LoadSrc, p, false), nft.L4Proto(unix.IPPROTO_TCP), tcpReset(), nft.One(nft.Accept()))
			b.rule("output", f.IsProto(), f.In(f.LoadSrc, p, false), nft.One(nft.Counter(), nft.Drop()))
			b.rule("output", f.IsProto(), f.In(f.LoadDst, p, false), nft.One(nft.Counter(), nft.Drop()))
		}
	}

	b.rule("redirect", nft.IIF(expr.CmpOpNeq, b.iface), nft.One(nft.Accept()))
	b.neighbours("tunnel")
	b.neighbours("towards")
	for _, f := range b.families() {
		b.rule("redirect", f.IsProto(), nft.One(b.goTo("captive"+f.Suffix)))
		b.rule("tunnel", f.IsProto(), nft.One(b.goTo("tunnel"+f.Suffix)))
		b.rule("towards", f.IsProto(), nft.One(b.goTo("towards"+f.Suffix)))
		if b.masquerade {
			for _, p := range b.prefixes(f) {
				b.rule("masquerade", nft.OIF(expr.CmpOpNeq, b.iface), b.marked(), f.IsProto(),
					f.In(f.LoadSrc, p, false), nft.One(nft.Encode(&expr.Masq{})))
			}
		}
	}
	b.rule("tunnel", nft.One(nft.Counter(), nft.Drop()))
	b.rule("towards", nft.One(nft.Counter(), nft.Drop()))
}

// closed are the rules of a table that is being built: nothing passes for a moment, and
// nobody is told, so that a connection that goes on behind it notices no more than a delay.
func (l layout) closed() []nft.Rule {
	b := &builder{layout: l}
	b.base("prerouting", "filter", unix.NF_INET_PRE_ROUTING, prioVerdict)
	b.base("output", "filter", unix.NF_INET_LOCAL_OUT, prioFilter)
	b.rule("prerouting", nft.IIF(expr.CmpOpEq, "lo"), nft.One(nft.Accept()))
	b.rule("prerouting", nft.IIF(expr.CmpOpEq, b.iface), nft.One(nft.Drop()))
	for _, f := range b.families() {
		for _, p := range b.prefixes(f) {
			b.rule("prerouting", f.IsProto(), f.In(f.LoadSrc, p, false), nft.One(nft.Drop()))
			b.rule("prerouting", f.IsProto(), f.In(f.LoadDst, p, false), nft.One(nft.Drop()))
		}
	}
	b.rule("output", nft.OIF(expr.CmpOpEq, b.iface), nft.One(nft.Drop()))
	return b.rules
}

// neighbours lets IPv6 neighbour discovery pass on links that need it.
func (b *builder) neighbours(chain string) {
	if !b.linkLayer {
		return
	}
	for _, typ := range []byte{135, 136} { // RFC 4861: solicitation, advertisement
		b.rule(chain, nft.IP6.IsProto(), nft.L4Proto(unix.IPPROTO_ICMPV6), nft.L4(0, expr.CmpOpEq, typ), nft.One(nft.Accept()))
	}
}

// marked matches packets that were permitted before routing.
func (b *builder) marked() []nft.Stmt {
	return []nft.Stmt{
		nft.Meta(expr.MetaKeyMARK, nft.R0),
		nft.Bitwise(nft.R0, 4, nft.Native32(b.mark), make([]byte, 4)),
		nft.Cmp(expr.CmpOpEq, nft.R0, nft.Native32(b.mark)),
	}
}

// verdicts are the two ends of every decision.
func (b *builder) verdicts() {
	b.rule("permit", b.setMark(), b.setPriority0(), nft.One(nft.Accept()))
	b.rule("refuse", nft.One(nft.LimitOver(500, 1000), nft.Drop()))
	b.rule("refuse", nft.L4Proto(unix.IPPROTO_TCP), nft.One(nft.RejectReset()))
	b.rule("refuse", nft.One(nft.RejectProhibited()))
}

// ports leads from zone (in the packet's priority, which serves as a scratch register),
// protocol and port to a class's chain. That leaves "role:class" in the priority, or
// something that no allow set has. port loads the port into R2.
func (b *builder) ports(chain string, port nft.Stmt) {
	for _, n := range b.levels {
		s := nft.One(nft.Meta(expr.MetaKeyPRIORITY, nft.R0), nft.CtOriginal(unix.NFT_CT_PROTOCOL, nft.R1))
		if n < 16 {
			s = append(s, port)
			if n > 0 {
				m := binary.BigEndian.AppendUint16(nil, 0xffff<<n&0xffff)
				s = append(s, nft.Bitwise(nft.R2, 2, m, []byte{0, 0}))
			}
		}
		b.rule(chain, s, nft.One(b.lookupVerdict(classSet(n), nft.R0)))
	}
	b.rule(chain, b.setPriority0())
}

// role puts the role of who began the flow into the priority.
func (b *builder) role() {
	b.rule("role", b.setPriority0())
	for _, f := range b.families() {
		for _, roles := range []string{roleSet(f), sourceSet(f)} {
			b.rule("role", nft.One(f.CtSrcReg(nft.R0), b.lookupMap(roles, nft.R0, nft.R0), nft.SetMeta(expr.MetaKeyPRIORITY, nft.R0), nft.Return()))
		}
	}
}

// classRules are the rules of a class's chain.
func (b *builder) classRules(class uint32) {
	name := classChain(class)
	b.chain(name)
	if class == 0 { // ports taken out of a larger block
		b.rule(name, b.setPriority0())
		return
	}
	b.rule(name, nft.One(b.jump("role")))
	b.rule(name, nft.One(nft.Meta(expr.MetaKeyPRIORITY, nft.R0), nft.Bitwise(nft.R0, 4, nft.Native32(0xffff0000), nft.Native32(class)), nft.SetMeta(expr.MetaKeyPRIORITY, nft.R0)))
}

func (b *builder) setPriority0() []nft.Stmt {
	return nft.One(nft.Immediate(nft.R0, make([]byte, 4)), nft.SetMeta(expr.MetaKeyPRIORITY, nft.R0))
}

// captive leads browsers of devices without a session to the portal.
func (b *builder) captive(f nft.IP) {
	name, web := "captive"+f.Suffix, "captive_web"+f.Suffix
	b.chain(name, web)
	b.toPublished(name, f, "published"+f.Suffix)
	b.rule(name, nft.One(nft.Meta(expr.MetaKeyL4PROTO, nft.R0), nft.Cmp(expr.CmpOpNeq, nft.R0, []byte{unix.IPPROTO_TCP})), nft.One(nft.Accept()))
	for _, a := range b.addrs(f) {
		b.rule(name, f.IsProto(), f.In(f.LoadDst, host(a), false), nft.L4Proto(unix.IPPROTO_TCP), dport(80), b.toPortal(f, a))
	}
	b.rule(name, f.IsProto(), nft.One(f.LoadSrc(nft.R0), b.lookup(sessionSet(f), nft.R0), nft.Accept()))
	b.rule(name, nft.L4Proto(unix.IPPROTO_TCP), dport(80), nft.One(b.goTo(web)))
	for _, a := range b.addrs(f) {
		b.rule(name, f.IsProto(), f.In(f.LoadDst, host(a), false), nft.L4Proto(unix.IPPROTO_TCP), dport(b.appPort), nft.One(b.goTo(web)))
	}
	if b.off {
		b.rule(web, nft.One(b.jump("key"+f.Suffix)))
		b.toPublished(web, f, "service"+f.Suffix, nft.One(nft.Meta(expr.MetaKeyPRIORITY, nft.R0), b.lookup(allowSet(0), nft.R0)))
		b.rule(web, nft.One(nft.Meta(expr.MetaKeyPRIORITY, nft.R0), b.lookup(allowSet(0), nft.R0), nft.Accept()))
	}
	if as := b.addrs(f); len(as) > 0 {
		b.rule(web, b.toPortal(f, as[0]))
	}
}

func dport(p uint16) []nft.Stmt {
	return nft.L4(2, expr.CmpOpEq, byte(p>>8), byte(p))
}

func host(a netip.Addr) netip.Prefix { return netip.PrefixFrom(a, a.BitLen()) }

// tcpReset matches a TCP header with the RST bit.
func tcpReset() []nft.Stmt { return tcpFlags(0x04, 0x04) }

func tcpFlags(mask, want byte) []nft.Stmt {
	return []nft.Stmt{
		nft.Payload(expr.PayloadBaseTransportHeader, 13, 1, nft.R0),
		nft.Bitwise(nft.R0, 1, []byte{mask}, []byte{0}),
		nft.Cmp(expr.CmpOpEq, nft.R0, []byte{want}),
	}
}

// clampMSS lowers the segment size that a SYN announces to what the routes of both
// directions carry, the tunnel's among them: ends that do not hear of a narrow path know
// no other way. The kernel never raises it.
func clampMSS() []nft.Stmt {
	const maxseg = 2 // TCP option (RFC 9293), its value 2 bytes behind its kind and length
	return []nft.Stmt{
		nft.Encode(&expr.Rt{Register: nft.R0, Key: expr.RtTCPMSS}),
		nft.Encode(&expr.Byteorder{SourceRegister: nft.R0, DestRegister: nft.R0, Op: expr.ByteorderHton, Len: 2, Size: 2}),
		nft.Encode(&expr.Exthdr{SourceRegister: nft.R0, Type: maxseg, Offset: 2, Len: 2, Op: expr.ExthdrOpTcpopt}),
	}
}

// toPortal rewrites the destination. It is a DNAT and not a redirect, because a redirect
// takes whichever address of the interface the kernel likes, for IPv6 a link-local one.
func (b *builder) toPortal(f nft.IP, gateway netip.Addr) []nft.Stmt {
	return b.toGateway(f, gateway, b.portalPort)
}

func (b *builder) toGateway(f nft.IP, gateway netip.Addr, to uint16) []nft.Stmt {
	port := f.After(nft.R0)
	return []nft.Stmt{
		nft.Immediate(nft.R0, gateway.AsSlice()),
		nft.Immediate(port, binary.BigEndian.AppendUint16(nil, to)),
		nft.Encode(&expr.NAT{Type: expr.NATTypeDestNAT, Family: uint32(f.NFProto), RegAddrMin: nft.R0, RegProtoMin: port, Specified: true}),
	}
}
