package filter

import (
	"encoding/binary"
	"fmt"
	"net/netip"

	"github.com/google/nftables/expr"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// Rules are decoded from netlink here: google/nftables v0.3.0 reads no rule that looks at
// a flow's original direction, and most of ours do.

// dataOf reads a nested value or verdict.
func dataOf(a attributes, typ uint16) (mapped, error) {
	d, err := readAttributes(a[typ])
	if err != nil {
		return mapped{}, err
	}
	if d[unix.NFTA_DATA_VERDICT] == nil {
		return mapped{data: d[unix.NFTA_DATA_VALUE]}, nil
	}
	v, err := readAttributes(d[unix.NFTA_DATA_VERDICT])
	if err != nil {
		return mapped{}, err
	}
	return mapped{verdict: verdict{int32(v.u32(unix.NFTA_VERDICT_CODE)), v.str(unix.NFTA_VERDICT_CHAIN)}}, nil
}

// decodeRule decodes NFTA_RULE_EXPRESSIONS.
func decodeRule(b []byte) ([]step, error) {
	list, err := netlink.UnmarshalAttributes(b)
	if err != nil {
		return nil, err
	}
	var steps []step
	for _, x := range list {
		e, err := readAttributes(x.Data)
		if err != nil {
			return nil, err
		}
		d, err := readAttributes(e[unix.NFTA_EXPR_DATA])
		if err != nil {
			return nil, err
		}
		name := e.str(unix.NFTA_EXPR_NAME)
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
func decodeStep(name string, a attributes) (step, error) {
	switch name {
	case "counter", "masq":
		return nil, nil
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
		within := a.u32(unix.NFTA_LIMIT_FLAGS)&unix.NFT_LIMIT_F_INV == 0
		return func(*machine) (bool, error) { return within, nil }, nil
	case "reject":
		return func(m *machine) (bool, error) { m.verdict = verdict{code: verdictDrop}; return true, nil }, nil
	}
	return nil, fmt.Errorf("it is none of ours")
}

func decodeMeta(a attributes) (step, error) {
	key := a.u32(unix.NFTA_META_KEY)
	if a[unix.NFTA_META_SREG] == nil {
		to, err := a.register(unix.NFTA_META_DREG)
		return func(m *machine) (bool, error) {
			v, err := m.packet.meta(key)
			if err != nil {
				return false, err
			}
			return true, m.load(to, v)
		}, err
	}
	from, err := a.register(unix.NFTA_META_SREG)
	switch key {
	case unix.NFT_META_MARK:
		return func(m *machine) (bool, error) { m.packet.mark = m.get32(from); return true, nil }, err
	case unix.NFT_META_PRIORITY:
		return func(m *machine) (bool, error) { m.packet.priority = m.get32(from); return true, nil }, err
	}
	return nil, fmt.Errorf("it sets packet key %d", key)
}

func decodeCt(a attributes) (step, error) {
	key := a.u32(unix.NFTA_CT_KEY)
	if a[unix.NFTA_CT_SREG] != nil {
		from, err := a.register(unix.NFTA_CT_SREG)
		switch key {
		case unix.NFT_CT_MARK:
			return func(m *machine) (bool, error) { m.packet.flowMark = m.get32(from); return true, nil }, err
		case unix.NFT_CT_LABELS:
			return func(m *machine) (bool, error) { copy(m.packet.label[:], m.regs[from:]); return true, nil }, err
		}
		return nil, fmt.Errorf("it sets flow key %d", key)
	}
	if d := a[unix.NFTA_CT_DIRECTION]; len(d) == 1 && d[0] != 0 {
		return nil, fmt.Errorf("it looks at direction %d", d[0])
	}
	to, err := a.register(unix.NFTA_CT_DREG)
	return func(m *machine) (bool, error) {
		v, ok, err := m.packet.tracked(key)
		if err != nil || !ok {
			return false, err
		}
		return true, m.load(to, v)
	}, err
}

func decodePayload(a attributes) (step, error) {
	base, offset, n := a.u32(unix.NFTA_PAYLOAD_BASE), a.u32(unix.NFTA_PAYLOAD_OFFSET), a.u32(unix.NFTA_PAYLOAD_LEN)
	to, err := a.register(unix.NFTA_PAYLOAD_DREG)
	if base != unix.NFT_PAYLOAD_NETWORK_HEADER && base != unix.NFT_PAYLOAD_TRANSPORT_HEADER {
		return nil, fmt.Errorf("it looks at header %d", base)
	}
	return func(m *machine) (bool, error) {
		header := m.packet.network
		if base == unix.NFT_PAYLOAD_TRANSPORT_HEADER {
			header = m.packet.transport
		}
		h := header()
		if uint64(offset)+uint64(n) > uint64(len(h)) {
			return false, nil
		}
		return true, m.load(to, h[offset:offset+n])
	}, err
}

func decodeImmediate(a attributes) (step, error) {
	v, err := dataOf(a, unix.NFTA_IMMEDIATE_DATA)
	if err != nil {
		return nil, err
	}
	if a.u32(unix.NFTA_IMMEDIATE_DREG) == unix.NFT_REG_VERDICT {
		return func(m *machine) (bool, error) { m.verdict = v.verdict; return true, nil }, nil
	}
	to, err := a.register(unix.NFTA_IMMEDIATE_DREG)
	return func(m *machine) (bool, error) { return true, m.load(to, v.data) }, err
}

func decodeBitwise(a attributes) (step, error) {
	from, err := a.register(unix.NFTA_BITWISE_SREG)
	if err != nil {
		return nil, err
	}
	to, err := a.register(unix.NFTA_BITWISE_DREG)
	if err != nil {
		return nil, err
	}
	mask, err := dataOf(a, unix.NFTA_BITWISE_MASK)
	if err != nil {
		return nil, err
	}
	xor, err := dataOf(a, unix.NFTA_BITWISE_XOR)
	if err != nil {
		return nil, err
	}
	n := a.u32(unix.NFTA_BITWISE_LEN)
	if uint32(len(mask.data)) != n || uint32(len(xor.data)) != n || from+n > uint32(len(machine{}.regs)) {
		return nil, fmt.Errorf("%d bytes with a mask of %d and %d to flip", n, len(mask.data), len(xor.data))
	}
	return func(m *machine) (bool, error) {
		v := make([]byte, n)
		for i := range v {
			v[i] = m.regs[int(from)+i]&mask.data[i] ^ xor.data[i]
		}
		return true, m.load(to, v)
	}, nil
}

func decodeCmp(a attributes) (step, error) {
	at, err := a.register(unix.NFTA_CMP_SREG)
	if err != nil {
		return nil, err
	}
	want, err := dataOf(a, unix.NFTA_CMP_DATA)
	if err != nil {
		return nil, err
	}
	c := &expr.Cmp{Op: expr.CmpOp(a.u32(unix.NFTA_CMP_OP)), Data: want.data}
	if int(at)+len(want.data) > len(machine{}.regs) {
		return nil, fmt.Errorf("it compares %d bytes", len(want.data))
	}
	return func(m *machine) (bool, error) { return matches(c, m.regs[at:]), nil }, nil
}

func decodeLookup(a attributes) (step, error) {
	set, flags := a.str(unix.NFTA_LOOKUP_SET), a.u32(unix.NFTA_LOOKUP_FLAGS)
	from, err := a.register(unix.NFTA_LOOKUP_SREG)
	if err != nil {
		return nil, err
	}
	const nowhere, toVerdict = 1 << 16, 1 << 17
	to := uint32(nowhere)
	if a[unix.NFTA_LOOKUP_DREG] != nil {
		if to = toVerdict; a.u32(unix.NFTA_LOOKUP_DREG) != unix.NFT_REG_VERDICT {
			if to, err = a.register(unix.NFTA_LOOKUP_DREG); err != nil {
				return nil, err
			}
		}
	}
	return func(m *machine) (bool, error) {
		v, found, err := m.from.find(set, m.regs[from:])
		if err != nil || found == (flags&unix.NFT_LOOKUP_F_INV != 0) {
			return false, err
		}
		switch to {
		case nowhere:
		case toVerdict:
			m.verdict = v.verdict
		default:
			return true, m.load(to, v.data)
		}
		return true, nil
	}, nil
}

// decodeNAT decodes a rewriting of the destination, which ends the chain.
func decodeNAT(a attributes) (step, error) {
	if a.u32(unix.NFTA_NAT_TYPE) != unix.NFT_NAT_DNAT {
		return nil, fmt.Errorf("it rewrites more than the destination")
	}
	addr, err := a.register(unix.NFTA_NAT_REG_ADDR_MIN)
	if err != nil {
		return nil, err
	}
	port, err := a.register(unix.NFTA_NAT_REG_PROTO_MIN)
	return func(m *machine) (bool, error) {
		p := &m.packet
		p.dst, _ = netip.AddrFromSlice(m.regs[addr : addr+ipOf(p.dst).len])
		p.port = binary.BigEndian.Uint16(m.regs[port:])
		p.rewritten = true
		m.verdict = verdict{code: verdictAccept}
		return true, nil
	}, err
}
