package run

import (
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

// decodeStep decodes one statement; nil does nothing to a packet's fate.
func decodeStep(name string, a nft.Attributes) (Step, error) {
	switch name {
	case "counter", "masq", "notrack", "rt", "byteorder":
		return nil, nil
	case "exthdr":
		if a[unix.NFTA_EXTHDR_SREG] == nil {
			return nil, fmt.Errorf("it looks at an option")
		}
		return nil, nil // the segment size that a SYN announces
	case "meta":
		return decodeMeta(a)
	case "ct":
		return decodeCt(a)
	case "payload":
		return decodePayload(a)
	case "immediate":
		return decodeImmediate(a)
	case "bitwise":
		return decodeBitwise(a)
	case "cmp":
		return decodeCmp(a)
	case "lookup":
		return decodeLookup(a)
	case "nat":
		return decodeNAT(a)
	case "limit":
		// One packet is over no limit.
		within := a.U32(unix.NFTA_LIMIT_FLAGS)&unix.NFT_LIMIT_F_INV == 0
		return func(*Machine) (bool, error) { return within, nil }, nil
	case "reject":
		return func(m *Machine) (bool, error) { m.verdict = verdict{code: verdictDrop}; return true, nil }, nil
	}
	return nil, fmt.Errorf("it is none of ours")
}

func decodeMeta(a nft.Attributes) (Step, error) {
	key := a.U32(unix.NFTA_META_KEY)
	if a[unix.NFTA_META_SREG] == nil {
		to, err := a.Register(unix.NFTA_META_DREG)
		return func(m *Machine) (bool, error) {
			v, err := m.Packet.meta(key)
			if err != nil {
				return false, err
			}
			return true, m.load(to, v)
		}, err
	}
	from, err := a.Register(unix.NFTA_META_SREG)
	switch key {
	case unix.NFT_META_MARK:
		return func(m *Machine) (bool, error) { m.Packet.Mark = m.get32(from); return true, nil }, err
	case unix.NFT_META_PRIORITY:
		return func(m *Machine) (bool, error) { m.Packet.priority = m.get32(from); return true, nil }, err
	}
	return nil, fmt.Errorf("it sets packet key %d", key)
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
		return nil, fmt.Errorf("it sets flow key %d", key)
	}
	d := a[unix.NFTA_CT_DIRECTION]
	reply := len(d) == 1 && d[0] != 0
	to, err := a.Register(unix.NFTA_CT_DREG)
	return func(m *Machine) (bool, error) {
		v, ok, err := m.Packet.tracked(key, reply)
		if err != nil || !ok {
			return false, err
		}
		return true, m.load(to, v)
	}, err
}

func decodePayload(a nft.Attributes) (Step, error) {
	base, offset, n := a.U32(unix.NFTA_PAYLOAD_BASE), a.U32(unix.NFTA_PAYLOAD_OFFSET), a.U32(unix.NFTA_PAYLOAD_LEN)
	to, err := a.Register(unix.NFTA_PAYLOAD_DREG)
	if base != unix.NFT_PAYLOAD_NETWORK_HEADER && base != unix.NFT_PAYLOAD_TRANSPORT_HEADER {
		return nil, fmt.Errorf("it looks at header %d", base)
	}
	return func(m *Machine) (bool, error) {
		header := m.Packet.network
		if base == unix.NFT_PAYLOAD_TRANSPORT_HEADER {
			header = m.Packet.transport
		}
		h := header()
		if uint64(offset)+uint64(n) > uint64(len(h)) {
			return false, nil
		}
		return true, m.load(to, h[offset:offset+n])
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
	if uint32(len(mask.Data)) != n || uint32(len(xor.Data)) != n || from+n > uint32(len(Machine{}.regs)) {
		return nil, fmt.Errorf("%d bytes with a mask of %d and %d to flip", n, len(mask.Data), len(xor.Data))
	}
	return func(m *Machine) (bool, error) {
		v := make([]byte, n)
		for i := range v {
			v[i] = m.regs[int(from)+i]&mask.Data[i] ^ xor.Data[i]
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
	c := &expr.Cmp{Op: expr.CmpOp(a.U32(unix.NFTA_CMP_OP)), Data: want.Data}
	if int(at)+len(want.Data) > len(Machine{}.regs) {
		return nil, fmt.Errorf("it compares %d bytes", len(want.Data))
	}
	return func(m *Machine) (bool, error) { return Matches(c, m.regs[at:]), nil }, nil
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
		v, found, err := m.From.Find(set, m.regs[from:])
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
		return nil, fmt.Errorf("it rewrites more than the destination")
	}
	addr, err := a.Register(unix.NFTA_NAT_REG_ADDR_MIN)
	if err != nil {
		return nil, err
	}
	port, err := a.Register(unix.NFTA_NAT_REG_PROTO_MIN)
	return func(m *Machine) (bool, error) {
		p := &m.Packet
		p.Dst, _ = netip.AddrFromSlice(m.regs[addr : addr+nft.IPOf(p.Dst).Len])
		p.Port = binary.BigEndian.Uint16(m.regs[port:])
		p.Rewritten = true
		m.verdict = verdict{code: verdictAccept}
		return true, nil
	}, err
}
