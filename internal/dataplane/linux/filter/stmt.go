package filter

import (
	"net/netip"

	"github.com/google/nftables/expr"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// rule is one rule of a chain: its statements, encoded, in order.
type rule struct {
	chain string
	stmts []stmt
}

// stmt is an encoded nf_tables expression.
type stmt []byte

// Registers. 8 to 23 are the sixteen 32-bit ones; a concatenation takes neighbours.
const (
	r0 = 8
	r1 = 9
	r2 = 10
	r4 = 12
)

func encode(e expr.Any) stmt {
	b, err := expr.Marshal(family, e)
	if err != nil {
		panic(err) // a programming error: the expressions here are constants in shape
	}
	return b
}

// ctOriginal loads a part of the flow's original tuple; google/nftables does not write
// the direction of the address keys.
func ctOriginal(key uint32, reg uint32) stmt {
	b, err := netlink.MarshalAttributes([]netlink.Attribute{
		{Type: unix.NFTA_EXPR_NAME, Data: cstr("ct")},
		nested(unix.NFTA_EXPR_DATA,
			netlink.Attribute{Type: unix.NFTA_CT_DREG, Data: be32(reg)},
			netlink.Attribute{Type: unix.NFTA_CT_KEY, Data: be32(key)},
			netlink.Attribute{Type: unix.NFTA_CT_DIRECTION, Data: []byte{0}}), // IP_CT_DIR_ORIGINAL
	})
	if err != nil {
		panic(err)
	}
	return b
}

// ip is what differs between the rules of the two families.
type ip struct {
	suffix      string // of chains and sets: "4", "6"
	nfproto     byte
	len         uint32
	ctSrc       uint32
	ctDst       uint32
	srcOff      uint32
	dstOff      uint32
	elementType uint32
}

var (
	ip4 = ip{"4", unix.NFPROTO_IPV4, 4, unix.NFT_CT_SRC_IP, unix.NFT_CT_DST_IP, 12, 16, typeIPv4}
	ip6 = ip{"6", unix.NFPROTO_IPV6, 16, unix.NFT_CT_SRC_IP6, unix.NFT_CT_DST_IP6, 8, 24, typeIPv6}
)

func ipOf(a netip.Addr) ip {
	if a.Is4() {
		return ip4
	}
	return ip6
}

func (f ip) loadSrc(reg uint32) stmt {
	return payload(expr.PayloadBaseNetworkHeader, f.srcOff, f.len, reg)
}
func (f ip) loadDst(reg uint32) stmt {
	return payload(expr.PayloadBaseNetworkHeader, f.dstOff, f.len, reg)
}

// ctSrcReg and ctDstReg load the addresses of the flow's first packet.
func (f ip) ctSrcReg(reg uint32) stmt { return ctOriginal(f.ctSrc, reg) }
func (f ip) ctDstReg(reg uint32) stmt { return ctOriginal(f.ctDst, reg) }

// after is the register behind an address that begins at reg.
func (f ip) after(reg uint32) uint32 { return reg + f.len/4 }

// isProto restricts a rule of the inet table to the family.
func (f ip) isProto() []stmt {
	return []stmt{meta(expr.MetaKeyNFPROTO, r0), cmp(expr.CmpOpEq, r0, []byte{f.nfproto})}
}

// in matches when the address loaded by load lies in p.
func (f ip) in(load func(uint32) stmt, p netip.Prefix, not bool) []stmt {
	op := expr.CmpOpEq
	if not {
		op = expr.CmpOpNeq
	}
	s := []stmt{load(r0)}
	if p.Bits() < p.Addr().BitLen() {
		s = append(s, bitwise(r0, f.len, mask(p), make([]byte, f.len)))
	}
	return append(s, cmp(op, r0, p.Masked().Addr().AsSlice()))
}

func mask(p netip.Prefix) []byte {
	m := make([]byte, p.Addr().BitLen()/8)
	for i := range p.Bits() {
		m[i/8] |= 0x80 >> (i % 8)
	}
	return m
}

func payload(base expr.PayloadBase, off, n, reg uint32) stmt {
	return encode(&expr.Payload{OperationType: expr.PayloadLoad, DestRegister: reg, Base: base, Offset: off, Len: n})
}

func meta(key expr.MetaKey, reg uint32) stmt { return encode(&expr.Meta{Key: key, Register: reg}) }
func setMeta(key expr.MetaKey, reg uint32) stmt {
	return encode(&expr.Meta{Key: key, Register: reg, SourceRegister: true})
}
func ct(key expr.CtKey, reg uint32) stmt { return encode(&expr.Ct{Key: key, Register: reg}) }
func setCt(key expr.CtKey, reg uint32) stmt {
	return encode(&expr.Ct{Key: key, Register: reg, SourceRegister: true})
}
func cmp(op expr.CmpOp, reg uint32, data []byte) stmt {
	return encode(&expr.Cmp{Op: op, Register: reg, Data: data})
}
func immediate(reg uint32, data []byte) stmt {
	return encode(&expr.Immediate{Register: reg, Data: data})
}
func bitwise(reg, n uint32, mask, xor []byte) stmt {
	return encode(&expr.Bitwise{SourceRegister: reg, DestRegister: reg, Len: n, Mask: mask, Xor: xor})
}
func accept() stmt  { return encode(&expr.Verdict{Kind: expr.VerdictAccept}) }
func drop() stmt    { return encode(&expr.Verdict{Kind: expr.VerdictDrop}) }
func back() stmt    { return encode(&expr.Verdict{Kind: expr.VerdictReturn}) }
func counter() stmt { return encode(&expr.Counter{}) }

// Interfaces are matched by name: an index dies with the interface.
func ifname(name string) []byte {
	b := make([]byte, unix.IFNAMSIZ)
	copy(b, name)
	return b
}

func iif(op expr.CmpOp, name string) []stmt {
	return []stmt{meta(expr.MetaKeyIIFNAME, r0), cmp(op, r0, ifname(name))}
}
func oif(op expr.CmpOp, name string) []stmt {
	return []stmt{meta(expr.MetaKeyOIFNAME, r0), cmp(op, r0, ifname(name))}
}

func l4proto(p byte) []stmt {
	return []stmt{meta(expr.MetaKeyL4PROTO, r0), cmp(expr.CmpOpEq, r0, []byte{p})}
}

// l4 matches bytes of the transport header.
func l4(off uint32, op expr.CmpOp, data ...byte) []stmt {
	return []stmt{payload(expr.PayloadBaseTransportHeader, off, uint32(len(data)), r0), cmp(op, r0, data)}
}

// ctState matches when the flow's state is one of bits.
func ctState(bits uint32) []stmt {
	return []stmt{
		ct(expr.CtKeySTATE, r0),
		bitwise(r0, 4, native32(bits), make([]byte, 4)),
		cmp(expr.CmpOpNeq, r0, make([]byte, 4)),
	}
}

const statusDNAT = 1 << 5 // IPS_DST_NAT

// ctStatus matches when the flow has the status bit.
func ctStatus(bit uint32) []stmt {
	return []stmt{
		ct(expr.CtKeySTATUS, r0),
		bitwise(r0, 4, native32(bit), make([]byte, 4)),
		cmp(expr.CmpOpNeq, r0, make([]byte, 4)),
	}
}

// Reject kinds (include/uapi/linux/netfilter/nf_tables.h, enum nft_reject_types).
func rejectProhibited() stmt {
	return encode(&expr.Reject{Type: unix.NFT_REJECT_ICMPX_UNREACH, Code: unix.NFT_REJECT_ICMPX_ADMIN_PROHIBITED})
}
func rejectReset() stmt { return encode(&expr.Reject{Type: unix.NFT_REJECT_TCP_RST}) }

func limitOver(perSecond uint64, burst uint32) stmt {
	return encode(&expr.Limit{Type: expr.LimitTypePkts, Rate: perSecond, Unit: expr.LimitTimeSecond, Burst: burst, Over: true})
}

// one makes a list of statements.
func one(s ...stmt) []stmt { return s }

func join(parts ...[]stmt) []stmt {
	var out []stmt
	for _, p := range parts {
		out = append(out, p...)
	}
	return out
}
