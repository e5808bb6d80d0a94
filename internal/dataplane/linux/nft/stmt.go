package nft

import (
	"net/netip"

	"github.com/google/nftables/expr"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// Rule is one rule of a chain: its statements, encoded, in order.
type Rule struct {
	Chain string
	Stmts []Stmt
}

// Stmt is an encoded nf_tables expression.
type Stmt []byte

// Registers. 8 to 23 are the sixteen 32-bit ones; a concatenation takes neighbours.
const (
	R0 = 8
	R1 = 9
	R2 = 10
	R4 = 12
)

func Encode(e expr.Any) Stmt {
	b, err := expr.Marshal(Inet, e)
	if err != nil {
		panic(err) // a programming error: the expressions here are constants in shape
	}
	return b
}

// CtOriginal loads a part of the tuple of the flow's first packet, CtReply one of the tuple
// of what answers it. google/nftables does not write the direction of the address keys.
func CtOriginal(key, reg uint32) Stmt { return ctTuple(0, key, reg) } // IP_CT_DIR_ORIGINAL
func CtReply(key, reg uint32) Stmt    { return ctTuple(1, key, reg) } // IP_CT_DIR_REPLY

func ctTuple(direction byte, key, reg uint32) Stmt {
	b, err := netlink.MarshalAttributes([]netlink.Attribute{
		{Type: unix.NFTA_EXPR_NAME, Data: CString("ct")},
		Nested(unix.NFTA_EXPR_DATA,
			netlink.Attribute{Type: unix.NFTA_CT_DREG, Data: be32(reg)},
			netlink.Attribute{Type: unix.NFTA_CT_KEY, Data: be32(key)},
			netlink.Attribute{Type: unix.NFTA_CT_DIRECTION, Data: []byte{direction}}),
	})
	if err != nil {
		panic(err)
	}
	return b
}

// IP is what differs between the rules of the two families.
type IP struct {
	Suffix      string // of chains and sets: "4", "6"
	NFProto     byte
	Len         uint32
	ctSrc       uint32
	ctDst       uint32
	SrcOff      uint32
	DstOff      uint32
	ElementType uint32
}

var (
	IP4 = IP{"4", unix.NFPROTO_IPV4, 4, unix.NFT_CT_SRC_IP, unix.NFT_CT_DST_IP, 12, 16, typeIPv4}
	IP6 = IP{"6", unix.NFPROTO_IPV6, 16, unix.NFT_CT_SRC_IP6, unix.NFT_CT_DST_IP6, 8, 24, typeIPv6}
)

func IPOf(a netip.Addr) IP {
	if a.Is4() {
		return IP4
	}
	return IP6
}

func (f IP) LoadSrc(reg uint32) Stmt {
	return Payload(expr.PayloadBaseNetworkHeader, f.SrcOff, f.Len, reg)
}
func (f IP) LoadDst(reg uint32) Stmt {
	return Payload(expr.PayloadBaseNetworkHeader, f.DstOff, f.Len, reg)
}

// CtSrcReg loads the address from which the flow's first packet came.
func (f IP) CtSrcReg(reg uint32) Stmt { return CtOriginal(f.ctSrc, reg) }

// CtDstReg loads the address to which the flow goes, however it was rewritten: that from
// which its answers come.
func (f IP) CtDstReg(reg uint32) Stmt { return CtReply(f.ctSrc, reg) }

// CtAskedReg loads the address that the flow's first packet was sent to, before anybody
// rewrote it.
func (f IP) CtAskedReg(reg uint32) Stmt { return CtOriginal(f.ctDst, reg) }

// After is the register behind an address that begins at reg.
func (f IP) After(reg uint32) uint32 { return reg + f.Len/4 }

// IsProto restricts a rule of the inet table to the family.
func (f IP) IsProto() []Stmt {
	return []Stmt{Meta(expr.MetaKeyNFPROTO, R0), Cmp(expr.CmpOpEq, R0, []byte{f.NFProto})}
}

// In matches when the address loaded by load lies in p.
func (f IP) In(load func(uint32) Stmt, p netip.Prefix, not bool) []Stmt {
	op := expr.CmpOpEq
	if not {
		op = expr.CmpOpNeq
	}
	s := []Stmt{load(R0)}
	if p.Bits() < p.Addr().BitLen() {
		s = append(s, Bitwise(R0, f.Len, mask(p), make([]byte, f.Len)))
	}
	return append(s, Cmp(op, R0, p.Masked().Addr().AsSlice()))
}

func mask(p netip.Prefix) []byte {
	m := make([]byte, p.Addr().BitLen()/8)
	for i := range p.Bits() {
		m[i/8] |= 0x80 >> (i % 8)
	}
	return m
}

func Payload(base expr.PayloadBase, off, n, reg uint32) Stmt {
	return Encode(&expr.Payload{OperationType: expr.PayloadLoad, DestRegister: reg, Base: base, Offset: off, Len: n})
}

func Meta(key expr.MetaKey, reg uint32) Stmt { return Encode(&expr.Meta{Key: key, Register: reg}) }
func SetMeta(key expr.MetaKey, reg uint32) Stmt {
	return Encode(&expr.Meta{Key: key, Register: reg, SourceRegister: true})
}
func Ct(key expr.CtKey, reg uint32) Stmt { return Encode(&expr.Ct{Key: key, Register: reg}) }
func SetCt(key expr.CtKey, reg uint32) Stmt {
	return Encode(&expr.Ct{Key: key, Register: reg, SourceRegister: true})
}
func Cmp(op expr.CmpOp, reg uint32, data []byte) Stmt {
	return Encode(&expr.Cmp{Op: op, Register: reg, Data: data})
}
func Immediate(reg uint32, data []byte) Stmt {
	return Encode(&expr.Immediate{Register: reg, Data: data})
}
func Bitwise(reg, n uint32, mask, xor []byte) Stmt {
	return Encode(&expr.Bitwise{SourceRegister: reg, DestRegister: reg, Len: n, Mask: mask, Xor: xor})
}
func Accept() Stmt  { return Encode(&expr.Verdict{Kind: expr.VerdictAccept}) }
func Drop() Stmt    { return Encode(&expr.Verdict{Kind: expr.VerdictDrop}) }
func Return() Stmt  { return Encode(&expr.Verdict{Kind: expr.VerdictReturn}) }
func Counter() Stmt { return Encode(&expr.Counter{}) }

// Interfaces are matched by name: an index dies with the interface.
func IfName(name string) []byte {
	b := make([]byte, unix.IFNAMSIZ)
	copy(b, name)
	return b
}

func IIF(op expr.CmpOp, name string) []Stmt {
	return []Stmt{Meta(expr.MetaKeyIIFNAME, R0), Cmp(op, R0, IfName(name))}
}
func OIF(op expr.CmpOp, name string) []Stmt {
	return []Stmt{Meta(expr.MetaKeyOIFNAME, R0), Cmp(op, R0, IfName(name))}
}

func L4Proto(p byte) []Stmt {
	return []Stmt{Meta(expr.MetaKeyL4PROTO, R0), Cmp(expr.CmpOpEq, R0, []byte{p})}
}

// L4 matches bytes of the transport header.
func L4(off uint32, op expr.CmpOp, data ...byte) []Stmt {
	return []Stmt{Payload(expr.PayloadBaseTransportHeader, off, uint32(len(data)), R0), Cmp(op, R0, data)}
}

// CtState matches when the flow's state is one of bits.
func CtState(bits uint32) []Stmt {
	return []Stmt{
		Ct(expr.CtKeySTATE, R0),
		Bitwise(R0, 4, Native32(bits), make([]byte, 4)),
		Cmp(expr.CmpOpNeq, R0, make([]byte, 4)),
	}
}

const StatusDNAT = 1 << 5 // IPS_DST_NAT

// CtStatus matches when the flow has the status bit.
func CtStatus(bit uint32) []Stmt {
	return []Stmt{
		Ct(expr.CtKeySTATUS, R0),
		Bitwise(R0, 4, Native32(bit), make([]byte, 4)),
		Cmp(expr.CmpOpNeq, R0, make([]byte, 4)),
	}
}

// Reject kinds (include/uapi/linux/netfilter/nf_tables.h, enum nft_reject_types).
func RejectProhibited() Stmt {
	return Encode(&expr.Reject{Type: unix.NFT_REJECT_ICMPX_UNREACH, Code: unix.NFT_REJECT_ICMPX_ADMIN_PROHIBITED})
}
func RejectReset() Stmt { return Encode(&expr.Reject{Type: unix.NFT_REJECT_TCP_RST}) }

func LimitOver(perSecond uint64, burst uint32) Stmt {
	return Encode(&expr.Limit{Type: expr.LimitTypePkts, Rate: perSecond, Unit: expr.LimitTimeSecond, Burst: burst, Over: true})
}

// One makes a list of statements.
func One(s ...Stmt) []Stmt { return s }

func Join(parts ...[]Stmt) []Stmt {
	var out []Stmt
	for _, p := range parts {
		out = append(out, p...)
	}
	return out
}
