package run

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net/netip"

	"github.com/google/nftables/expr"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"vpnd/internal/dataplane/linux/nft"
)

// Rules are decoded from netlink here: google/nftables v0.3.0 reads no rule that looks at
// a flow's original direction, and most of ours do.

// DataOf reads a nested value or verdict.
func DataOf(a nft.Attributes, typ uint16) (Mapped, error) {
	d, err := nft.ReadAttributes(a[typ])
	if err != nil {
		return Mapped{}, err
	}
	if d[unix.NFTA_DATA_VERDICT] == nil {
		return Mapped{Data: d[unix.NFTA_DATA_VALUE]}, nil
	}
	v, err := nft.ReadAttributes(d[unix.NFTA_DATA_VERDICT])
	if err != nil {
		return Mapped{}, err
	}
	return Mapped{verdict: verdict{int32(v.U32(unix.NFTA_VERDICT_CODE)), v.Str(unix.NFTA_VERDICT_CHAIN)}}, nil
}

// DecodeRule decodes NFTA_RULE_EXPRESSIONS.
func DecodeRule(b []byte) ([]Step, error) {
	list, err := netlink.UnmarshalAttributes(b)
	if err != nil {
		return nil, err
	}
	var steps []Step
	for _, x := range list {
		e, err := nft.ReadAttributes(x.Data)
		if err != nil {
			return nil, err
		}
		d, err := nft.ReadAttributes(e[unix.NFTA_EXPR_DATA])
		if err != nil {
			return nil, err
		}
		name := e.Str(unix.NFTA_EXPR_NAME)
		s, err := decodeStep(name, d)
		if err != nil {
			return nil, fmt.Errorf("statement %q: %w", name, err)
		}
		if s != nil {
			steps = append(steps, s)
		}
	}
	return steps, nil
}

// decodeStep decodes one statement; nil does nothing to a packet's fate. Of one that is not
// known nobody can tell whether its rule goes on.
func decodeStep(name string, a nft.Attributes) (Step, error) {
	switch name {
	case "counter", "log", "last", "notrack", "masq":
		return nil, nil
	case "rt":
		return forgets(a, unix.NFTA_RT_DREG)
	case "byteorder":
		return forgets(a, unix.NFTA_BYTEORDER_DREG)
	case "exthdr":
		if a[unix.NFTA_EXTHDR_SREG] != nil {
			return nil, nil // the segment size that a SYN announces
		}
		return forgets(a, unix.NFTA_EXTHDR_DREG)
	case "meta":
		return decodeMeta(a)
	case "ct":
		return decodeCt(a)
	case "fib":
		return decodeFib(a)
	case "payload":
		return decodePayload(a)
	case "immediate":
		return decodeImmediate(a)
	case "bitwise":
		return decodeBitwise(a)
	case "cmp":
		return decodeCmp(a)
	case "range":
		return decodeRange(a)
	case "lookup":
		return decodeLookup(a)
	case "nat":
		return decodeNAT(a)
	case "match":
		return decodeMatch(a)
	case "target":
		if t := a.Str(unix.NFTA_TARGET_NAME); t != "REJECT" && t != "DROP" {
			return nil, nil
		}
		return drops, nil
	case "limit":
		// One packet is over no limit.
		within := a.U32(unix.NFTA_LIMIT_FLAGS)&unix.NFT_LIMIT_F_INV == 0
		return func(*Machine) (bool, error) { return within, nil }, nil
	case "reject":
		return drops, nil
	}
	return cannotTell("statement %q is not known", name), nil
}

func drops(m *Machine) (bool, error) { m.verdict = verdict{code: verdictDrop}; return true, nil }

func cannotTell(format string, args ...any) Step {
	return func(*Machine) (bool, error) { return false, unknown(format, args...) }
}

// forgets is a statement that loads what is not known here.
func forgets(a nft.Attributes, dreg uint16) (Step, error) {
	to, err := a.Register(dreg)
	return func(m *Machine) (bool, error) { m.forget(to, 16); return true, nil }, err
}

func decodeMeta(a nft.Attributes) (Step, error) {
	key := a.U32(unix.NFTA_META_KEY)
	if a[unix.NFTA_META_SREG] == nil {
		to, err := a.Register(unix.NFTA_META_DREG)
		return func(m *Machine) (bool, error) {
			v, err := m.Packet.meta(key)
			return m.loadIf(to, v, err)
		}, err
	}
	from, err := a.Register(unix.NFTA_META_SREG)
	switch key {
	case unix.NFT_META_MARK:
		return func(m *Machine) (bool, error) { m.Packet.Mark = m.get32(from); return true, nil }, err
	case unix.NFT_META_PRIORITY:
		return func(m *Machine) (bool, error) { m.Packet.priority = m.get32(from); return true, nil }, err
	}
	return nil, err // nothing that rules look at
}

func decodeCt(a nft.Attributes) (Step, error) {
	key := a.U32(unix.NFTA_CT_KEY)
	if a[unix.NFTA_CT_SREG] != nil {
		from, err := a.Register(unix.NFTA_CT_SREG)
		switch key {
		case unix.NFT_CT_MARK:
			return func(m *Machine) (bool, error) { m.Packet.flowMark = m.get32(from); return true, nil }, err
		case unix.NFT_CT_LABELS:
			return func(m *Machine) (bool, error) { copy(m.Packet.label[:], m.regs[from:]); return true, nil }, err
		}
		return nil, err // nothing that rules look at
	}
	d := a[unix.NFTA_CT_DIRECTION]
	reply := len(d) == 1 && d[0] != 0
	to, err := a.Register(unix.NFTA_CT_DREG)
	return func(m *Machine) (bool, error) {
		v, ok, err := m.Packet.tracked(key, reply)
		if !ok {
			return false, err
		}
		return m.loadIf(to, v, err)
	}, err
}

func decodePayload(a nft.Attributes) (Step, error) {
	base, offset, n := a.U32(unix.NFTA_PAYLOAD_BASE), a.U32(unix.NFTA_PAYLOAD_OFFSET), a.U32(unix.NFTA_PAYLOAD_LEN)
	if a[unix.NFTA_PAYLOAD_SREG] != nil {
		return cannotTell("it changes the packet"), nil
	}
	to, err := a.Register(unix.NFTA_PAYLOAD_DREG)
	return func(m *Machine) (bool, error) {
		v, ok, err := m.Packet.header(base, offset, n)
		if !ok {
			return false, err
		}
		return m.loadIf(to, v, err)
	}, err
}

func decodeImmediate(a nft.Attributes) (Step, error) {
	v, err := DataOf(a, unix.NFTA_IMMEDIATE_DATA)
	if err != nil {
		return nil, err
	}
	if a.U32(unix.NFTA_IMMEDIATE_DREG) == unix.NFT_REG_VERDICT {
		return func(m *Machine) (bool, error) { m.verdict = v.verdict; return true, nil }, nil
	}
	to, err := a.Register(unix.NFTA_IMMEDIATE_DREG)
	return func(m *Machine) (bool, error) { return true, m.load(to, v.Data) }, err
}

func decodeBitwise(a nft.Attributes) (Step, error) {
	from, err := a.Register(unix.NFTA_BITWISE_SREG)
	if err != nil {
		return nil, err
	}
	to, err := a.Register(unix.NFTA_BITWISE_DREG)
	if err != nil {
		return nil, err
	}
	mask, err := DataOf(a, unix.NFTA_BITWISE_MASK)
	if err != nil {
		return nil, err
	}
	xor, err := DataOf(a, unix.NFTA_BITWISE_XOR)
	if err != nil {
		return nil, err
	}
	n := a.U32(unix.NFTA_BITWISE_LEN)
	if len(mask.Data) == 0 || len(xor.Data) == 0 { // a shift, or of two registers
		return func(m *Machine) (bool, error) { m.forget(to, max(n, 4)); return true, nil }, nil
	}
	if uint32(len(mask.Data)) != n || uint32(len(xor.Data)) != n || from+n > uint32(len(Machine{}.regs)) {
		return nil, fmt.Errorf("%d bytes with a mask of %d and %d to flip", n, len(mask.Data), len(xor.Data))
	}
	return func(m *Machine) (bool, error) {
		was, err := m.read(from, n)
		if err != nil {
			return m.loadIf(to, nil, err)
		}
		v := make([]byte, n)
		for i := range v {
			v[i] = was[i]&mask.Data[i] ^ xor.Data[i]
		}
		return true, m.load(to, v)
	}, nil
}

func decodeCmp(a nft.Attributes) (Step, error) {
	at, err := a.Register(unix.NFTA_CMP_SREG)
	if err != nil {
		return nil, err
	}
	want, err := DataOf(a, unix.NFTA_CMP_DATA)
	if err != nil {
		return nil, err
	}
	op := expr.CmpOp(a.U32(unix.NFTA_CMP_OP))
	return func(m *Machine) (bool, error) {
		v, err := m.read(at, uint32(len(want.Data)))
		return err == nil && holds(op, bytes.Compare(v, want.Data)), err
	}, nil
}

// holds says whether a comparison came out as op wants it.
func holds(op expr.CmpOp, c int) bool {
	switch op {
	case expr.CmpOpEq:
		return c == 0
	case expr.CmpOpNeq:
		return c != 0
	case expr.CmpOpLt:
		return c < 0
	case expr.CmpOpLte:
		return c <= 0
	case expr.CmpOpGt:
		return c > 0
	case expr.CmpOpGte:
		return c >= 0
	}
	return false
}

func decodeRange(a nft.Attributes) (Step, error) {
	at, err := a.Register(unix.NFTA_RANGE_SREG)
	if err != nil {
		return nil, err
	}
	from, err := DataOf(a, unix.NFTA_RANGE_FROM_DATA)
	if err != nil {
		return nil, err
	}
	to, err := DataOf(a, unix.NFTA_RANGE_TO_DATA)
	outside := a.U32(unix.NFTA_RANGE_OP) == unix.NFT_RANGE_NEQ
	return func(m *Machine) (bool, error) {
		v, err := m.read(at, uint32(len(from.Data)))
		if err != nil {
			return false, err
		}
		return (bytes.Compare(v, from.Data) >= 0 && bytes.Compare(v, to.Data) <= 0) != outside, nil
	}, err
}

func decodeLookup(a nft.Attributes) (Step, error) {
	set, flags := a.Str(unix.NFTA_LOOKUP_SET), a.U32(unix.NFTA_LOOKUP_FLAGS)
	from, err := a.Register(unix.NFTA_LOOKUP_SREG)
	if err != nil {
		return nil, err
	}
	const nowhere, toVerdict = 1 << 16, 1 << 17
	to := uint32(nowhere)
	if a[unix.NFTA_LOOKUP_DREG] != nil {
		if to = toVerdict; a.U32(unix.NFTA_LOOKUP_DREG) != unix.NFT_REG_VERDICT {
			if to, err = a.Register(unix.NFTA_LOOKUP_DREG); err != nil {
				return nil, err
			}
		}
	}
	return func(m *Machine) (bool, error) {
		v, found, err := m.From.Find(set, m.known(from))
		if err != nil || found == (flags&unix.NFT_LOOKUP_F_INV != 0) {
			return false, err
		}
		switch to {
		case nowhere:
		case toVerdict:
			m.verdict = v.verdict
		default:
			return true, m.load(to, v.Data)
		}
		return true, nil
	}, nil
}

// decodeNAT decodes a rewriting of the destination, which ends the chain.
func decodeNAT(a nft.Attributes) (Step, error) {
	if a.U32(unix.NFTA_NAT_TYPE) != unix.NFT_NAT_DNAT {
		return cannotTell("it rewrites more than the destination"), nil
	}
	addr, err := a.Register(unix.NFTA_NAT_REG_ADDR_MIN)
	if err != nil {
		return nil, err
	}
	ported := a[unix.NFTA_NAT_REG_PROTO_MIN] != nil
	var port uint32
	if ported {
		port, err = a.Register(unix.NFTA_NAT_REG_PROTO_MIN)
	}
	return func(m *Machine) (bool, error) {
		p := &m.Packet
		if p.Partial {
			return false, unknown("it rewrites the destination")
		}
		p.Dst, _ = netip.AddrFromSlice(m.regs[addr : addr+nft.IPOf(p.Dst).Len])
		if ported {
			p.Port = binary.BigEndian.Uint16(m.regs[port:])
		}
		p.Rewritten = true
		m.verdict = verdict{code: verdictAccept}
		return true, nil
	}, err
}
