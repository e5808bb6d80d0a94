package filter

import (
	"encoding/binary"
	"maps"
	"net/netip"
	"slices"

	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// link is a chain of the table; hook is nil for one that is only jumped to.
type link struct {
	name string
	hook *hook
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
	rules  []rule
}

func (b *builder) lookup(set string, reg uint32) stmt {
	return encode(&expr.Lookup{SourceRegister: reg, SetName: set + b.suffix})
}

// lookupMap replaces the key that begins at reg by the value found in dst; a miss ends the rule.
func (b *builder) lookupMap(set string, reg, dst uint32) stmt {
	return encode(&expr.Lookup{SourceRegister: reg, DestRegister: dst, IsDestRegSet: true, SetName: set + b.suffix})
}

// lookupVerdict goes where the map says; a miss ends the rule.
func (b *builder) lookupVerdict(set string, reg uint32) stmt {
	return encode(&expr.Lookup{SourceRegister: reg, DestRegister: 0, IsDestRegSet: true, SetName: set + b.suffix})
}

func (b *builder) jump(chain string) stmt {
	return encode(&expr.Verdict{Kind: expr.VerdictJump, Chain: chain + b.suffix})
}

func (b *builder) goTo(chain string) stmt {
	return encode(&expr.Verdict{Kind: expr.VerdictGoto, Chain: chain + b.suffix})
}

func (b *builder) base(name, kind string, num uint32, prio int32) {
	b.chains = append(b.chains, link{name, &hook{kind: kind, num: num, priority: prio}})
}

func (b *builder) chain(names ...string) {
	for _, n := range names {
		b.chains = append(b.chains, link{name: n + b.suffix})
	}
}

func (b *builder) rule(chain string, parts ...[]stmt) {
	if !slices.ContainsFunc(b.chains, func(c link) bool { return c.hook != nil && c.name == chain }) {
		chain += b.suffix
	}
	b.rules = append(b.rules, rule{chain: chain, stmts: join(parts...)})
}

// build gives chains and rules. Chains are made before rules, so order is for readers.
func (l layout) build(suffix string, classes map[uint32]bool) ([]link, []rule) {
	b := &builder{layout: l, suffix: suffix}
	b.base("redirect", "nat", unix.NF_INET_PRE_ROUTING, prioRedirect)
	b.base("prerouting", "filter", unix.NF_INET_PRE_ROUTING, prioVerdict)
	b.base("input", "filter", unix.NF_INET_LOCAL_IN, prioFilter)
	b.base("forward", "filter", unix.NF_INET_FORWARD, prioFilter)
	b.base("output", "filter", unix.NF_INET_LOCAL_OUT, prioFilter)
	b.base("masquerade", "nat", unix.NF_INET_POST_ROUTING, prioMasquerade)
	b.chain("tunnel", "towards", "ports", "role", "allow", "permit", "refuse")
	b.hooks()
	b.ports()
	b.allow()
	b.verdicts()
	for _, f := range l.families() {
		b.captive(f)
		b.fromTunnel(f)
		b.fromOutside(f)
		b.fromHost(f)
		b.judge(f)
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
		b.quick("tunnel", f, f.loadSrc, f.isProto())
	}
	b.rule("prerouting", iif(expr.CmpOpEq, b.iface), one(b.goTo("tunnel")))
	b.rule("prerouting", iif(expr.CmpOpEq, "lo"), one(accept()))
	for _, f := range b.families() {
		for _, p := range b.prefixes(f) {
			b.rule("prerouting", f.isProto(), f.in(f.loadSrc, p, false), one(counter(), drop()))
		}
		for _, a := range b.addrs(f) {
			b.rule("prerouting", f.isProto(), f.in(f.loadDst, host(a), false), one(counter(), drop()))
		}
		for _, p := range b.prefixes(f) {
			b.rule("prerouting", f.isProto(), f.in(f.loadDst, p, false), one(b.goTo("outside"+f.suffix)))
		}
	}

	b.rule("input", iif(expr.CmpOpNeq, b.iface), one(accept()))
	b.neighbours("input")
	b.rule("input", b.marked(), one(accept()))
	b.rule("input", one(counter(), drop()))

	others := join(iif(expr.CmpOpNeq, b.iface), oif(expr.CmpOpNeq, b.iface))
	if b.guard4 {
		b.rule("forward", others, ip4.isProto(), one(counter(), drop()))
	}
	if b.guard6 {
		b.rule("forward", others, ip6.isProto(), one(counter(), drop()))
	}
	b.rule("forward", b.marked(), one(accept()))
	b.rule("forward", others, one(accept()))
	b.rule("forward", one(counter(), drop()))

	// The gateway's tunnel addresses answer in the tunnel only, also to the host itself. A
	// socket that is bound to the tunnel's interface does not see to that: the kernel takes
	// what the host sends to its own address for having come in by that address's interface.
	for _, f := range b.families() {
		for _, a := range b.addrs(f) {
			b.rule("output", oif(expr.CmpOpEq, "lo"), f.isProto(), f.in(f.loadDst, host(a), false), l4proto(unix.IPPROTO_TCP), one(rejectReset()))
			b.rule("output", oif(expr.CmpOpEq, "lo"), f.isProto(), f.in(f.loadDst, host(a), false), l4proto(unix.IPPROTO_UDP), one(counter(), drop()))
		}
	}
	b.rule("output", oif(expr.CmpOpEq, "lo"), one(accept()))
	b.rule("output", oif(expr.CmpOpEq, b.iface), one(b.goTo("towards")))
	for _, f := range b.families() {
		for _, p := range b.prefixes(f) {
			// Resets by which a resource learns that a device's connection is dead.
			b.rule("output", f.isProto(), f.in(f.loadSrc, p, false), l4proto(unix.IPPROTO_TCP), tcpReset(), one(accept()))
			b.rule("output", f.isProto(), f.in(f.loadSrc, p, false), one(counter(), drop()))
			b.rule("output", f.isProto(), f.in(f.loadDst, p, false), one(counter(), drop()))
		}
	}

	b.rule("redirect", iif(expr.CmpOpNeq, b.iface), one(accept()))
	b.neighbours("tunnel")
	b.neighbours("towards")
	for _, f := range b.families() {
		b.rule("redirect", f.isProto(), one(b.goTo("captive"+f.suffix)))
		b.rule("tunnel", f.isProto(), one(b.goTo("tunnel"+f.suffix)))
		b.rule("towards", f.isProto(), one(b.goTo("towards"+f.suffix)))
		if b.masquerade {
			for _, p := range b.prefixes(f) {
				b.rule("masquerade", oif(expr.CmpOpNeq, b.iface), b.marked(), f.isProto(),
					f.in(f.loadSrc, p, false), one(encode(&expr.Masq{})))
			}
		}
	}
	b.rule("tunnel", one(counter(), drop()))
	b.rule("towards", one(counter(), drop()))
}

// closed are the rules of a table that is being built: nothing passes for a moment, and
// nobody is told, so that a connection that goes on behind it notices no more than a delay.
func (l layout) closed() []rule {
	b := &builder{layout: l}
	b.base("prerouting", "filter", unix.NF_INET_PRE_ROUTING, prioVerdict)
	b.base("output", "filter", unix.NF_INET_LOCAL_OUT, prioFilter)
	b.rule("prerouting", iif(expr.CmpOpEq, "lo"), one(accept()))
	b.rule("prerouting", iif(expr.CmpOpEq, b.iface), one(drop()))
	for _, f := range b.families() {
		for _, p := range b.prefixes(f) {
			b.rule("prerouting", f.isProto(), f.in(f.loadSrc, p, false), one(drop()))
			b.rule("prerouting", f.isProto(), f.in(f.loadDst, p, false), one(drop()))
		}
	}
	b.rule("output", oif(expr.CmpOpEq, b.iface), one(drop()))
	return b.rules
}

// neighbours lets IPv6 neighbour discovery pass on links that need it.
func (b *builder) neighbours(chain string) {
	if !b.linkLayer {
		return
	}
	for _, typ := range []byte{135, 136} { // RFC 4861: solicitation, advertisement
		b.rule(chain, ip6.isProto(), l4proto(unix.IPPROTO_ICMPV6), l4(0, expr.CmpOpEq, typ), one(accept()))
	}
}

// marked matches packets that were permitted before routing.
func (b *builder) marked() []stmt {
	return []stmt{
		meta(expr.MetaKeyMARK, r0),
		bitwise(r0, 4, native32(b.mark), make([]byte, 4)),
		cmp(expr.CmpOpEq, r0, native32(b.mark)),
	}
}

// verdicts are the two ends of every decision.
func (b *builder) verdicts() {
	b.rule("permit", b.setMark(), b.setPriority0(), one(accept()))
	b.rule("refuse", one(limitOver(500, 1000), drop()))
	b.rule("refuse", l4proto(unix.IPPROTO_TCP), one(rejectReset()))
	b.rule("refuse", one(rejectProhibited()))
}

// ports leads from zone (in the packet's priority, which serves as a scratch register),
// protocol and port to a class's chain. That leaves "role:class" in the priority, or
// something that no allow set has.
func (b *builder) ports() {
	for _, n := range b.levels {
		s := one(meta(expr.MetaKeyPRIORITY, r0), ctOriginal(unix.NFT_CT_PROTOCOL, r1))
		if n < 16 {
			s = append(s, ctOriginal(unix.NFT_CT_PROTO_DST, r2))
			if n > 0 {
				m := binary.BigEndian.AppendUint16(nil, 0xffff<<n&0xffff)
				s = append(s, bitwise(r2, 2, m, []byte{0, 0}))
			}
		}
		b.rule("ports", s, one(b.lookupVerdict(classSet(n), r0)))
	}
	b.rule("ports", b.setPriority0())

	b.rule("role", b.setPriority0())
	for _, f := range b.families() {
		for _, roles := range []string{roleSet(f), sourceSet(f)} {
			b.rule("role", one(f.ctSrcReg(r0), b.lookupMap(roles, r0, r0), setMeta(expr.MetaKeyPRIORITY, r0), back()))
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
	b.rule(name, one(b.jump("role")))
	b.rule(name, one(meta(expr.MetaKeyPRIORITY, r0), bitwise(r0, 4, native32(0xffff0000), native32(class)), setMeta(expr.MetaKeyPRIORITY, r0)))
}

func (b *builder) setPriority0() []stmt {
	return one(immediate(r0, make([]byte, 4)), setMeta(expr.MetaKeyPRIORITY, r0))
}

// captive leads browsers of devices without a session to the portal.
func (b *builder) captive(f ip) {
	name, web := "captive"+f.suffix, "captive_web"+f.suffix
	b.chain(name, web)
	b.rule(name, one(meta(expr.MetaKeyL4PROTO, r0), cmp(expr.CmpOpNeq, r0, []byte{unix.IPPROTO_TCP})), one(accept()))
	for _, a := range b.addrs(f) {
		b.rule(name, f.isProto(), f.in(f.loadDst, host(a), false), l4proto(unix.IPPROTO_TCP), dport(80), b.toPortal(f, a))
	}
	b.rule(name, f.isProto(), one(f.loadSrc(r0), b.lookup(sessionSet(f), r0), accept()))
	b.rule(name, l4proto(unix.IPPROTO_TCP), dport(80), one(b.goTo(web)))
	for _, a := range b.addrs(f) {
		b.rule(name, f.isProto(), f.in(f.loadDst, host(a), false), l4proto(unix.IPPROTO_TCP), dport(b.appPort), one(b.goTo(web)))
	}
	if b.off {
		b.rule(web, one(b.jump("key"+f.suffix)))
		b.rule(web, one(meta(expr.MetaKeyPRIORITY, r0), b.lookup(allowSet(0), r0), accept()))
	}
	if as := b.addrs(f); len(as) > 0 {
		b.rule(web, b.toPortal(f, as[0]))
	}
}

func dport(p uint16) []stmt {
	return l4(2, expr.CmpOpEq, byte(p>>8), byte(p))
}

func host(a netip.Addr) netip.Prefix { return netip.PrefixFrom(a, a.BitLen()) }

// tcpReset matches a TCP header with the RST bit.
func tcpReset() []stmt { return tcpFlags(0x04, 0x04) }

func tcpFlags(mask, want byte) []stmt {
	return []stmt{
		payload(expr.PayloadBaseTransportHeader, 13, 1, r0),
		bitwise(r0, 1, []byte{mask}, []byte{0}),
		cmp(expr.CmpOpEq, r0, []byte{want}),
	}
}

// toPortal rewrites the destination. It is a DNAT and not a redirect, because a redirect
// takes whichever address of the interface the kernel likes, for IPv6 a link-local one.
func (b *builder) toPortal(f ip, gateway netip.Addr) []stmt {
	port := f.after(r0)
	return []stmt{
		immediate(r0, gateway.AsSlice()),
		immediate(port, binary.BigEndian.AppendUint16(nil, b.portalPort)),
		encode(&expr.NAT{Type: expr.NATTypeDestNAT, Family: uint32(f.nfproto), RegAddrMin: r0, RegProtoMin: port, Specified: true}),
	}
}
