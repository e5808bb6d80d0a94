package run

import (
	"encoding/binary"
	"net"
	"net/netip"

	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"vpnd/internal/dataplane"
	"vpnd/internal/dataplane/linux/nft"
)

// Packet is the first packet of a flow on its way through the hooks.
type Packet struct {
	Flow      dataplane.Flow // as conntrack keeps it: before any rewriting
	Dst       netip.Addr     // as it is rewritten
	Port      uint16
	IIF, OIF  string
	Mark      uint32
	priority  uint32
	flowMark  uint32
	label     [16]byte // of the flow
	Rewritten bool

	// Partial: of the packet only its protocol and destination port, the interfaces and
	// what follows are known. It stands for many.
	Partial     bool
	V6          bool
	Established bool // of a flow that was answered
	Local       bool // addressed to this host
}

// header gives bytes of a header; ok is false if the packet has not so many.
func (p *Packet) header(base, offset, n uint32) (v []byte, ok bool, err error) {
	if p.Partial {
		proto := uint32(9) // where an IP header says it
		if p.V6 {
			proto = 6
		}
		switch {
		case base == unix.NFT_PAYLOAD_TRANSPORT_HEADER && offset == 2 && n == 2:
			return binary.BigEndian.AppendUint16(nil, p.Port), true, nil
		case base == unix.NFT_PAYLOAD_NETWORK_HEADER && offset == proto && n == 1:
			return []byte{p.Flow.Proto}, true, nil
		}
		return nil, true, unknown("header %d at %d", base, offset)
	}
	var h []byte
	switch base {
	case unix.NFT_PAYLOAD_NETWORK_HEADER:
		h = p.network()
	case unix.NFT_PAYLOAD_TRANSPORT_HEADER:
		h = p.transport()
	default:
		return nil, true, unknown("header %d", base)
	}
	if uint64(offset)+uint64(n) > uint64(len(h)) {
		return nil, false, nil
	}
	return h[offset : offset+n], true, nil
}

// network is the packet's IP header, as far as rules look at it.
func (p *Packet) network() []byte {
	if p.Dst.Is4() {
		h := make([]byte, 20)
		h[0], h[9] = 0x45, p.Flow.Proto
		copy(h[nft.IP4.SrcOff:], p.Flow.Src.AsSlice())
		copy(h[nft.IP4.DstOff:], p.Dst.AsSlice())
		return h
	}
	h := make([]byte, 40)
	h[0], h[6] = 6<<4, p.Flow.Proto
	copy(h[nft.IP6.SrcOff:], p.Flow.Src.AsSlice())
	copy(h[nft.IP6.DstOff:], p.Dst.AsSlice())
	return h
}

// transport is the header behind it: a SYN, an echo request, or ports alone.
func (p *Packet) transport() []byte {
	switch p.Flow.Proto {
	case unix.IPPROTO_ICMP:
		return []byte{Echo4, 0, 0, 0, 0, 0, 0, 0}
	case unix.IPPROTO_ICMPV6:
		return []byte{Echo6, 0, 0, 0, 0, 0, 0, 0}
	}
	h := make([]byte, 20)
	binary.BigEndian.PutUint16(h[2:], p.Port)
	if p.Flow.Proto == unix.IPPROTO_TCP {
		h[12], h[13] = 5<<4, 0x02
	}
	return h
}

// Types of echo requests (RFC 792, RFC 4443).
const Echo4, Echo6 = 8, 128

// tracked is a key of the flow's original tuple, of its answers' tuple, or of its state; ok is false if the flow, being
// of the other family, has no such thing.
func (p *Packet) tracked(key uint32, reply bool) (v []byte, ok bool, err error) {
	if p.Partial {
		switch key {
		case unix.NFT_CT_STATE:
			if p.Established {
				return nft.Native32(expr.CtStateBitESTABLISHED), true, nil
			}
			return nft.Native32(expr.CtStateBitNEW), true, nil
		case unix.NFT_CT_STATUS:
			return nft.Native32(0), true, nil
		}
		return nil, true, unknown("flow key %d", key)
	}
	if reply {
		switch key {
		case unix.NFT_CT_SRC_IP, unix.NFT_CT_SRC_IP6:
			return p.Dst.AsSlice(), p.Dst.Is4() == (key == unix.NFT_CT_SRC_IP), nil
		case unix.NFT_CT_PROTO_SRC:
			return binary.BigEndian.AppendUint16(nil, p.Port), true, nil
		}
		return nil, true, unknown("flow key %d of the answers is not known", key)
	}
	switch key {
	case unix.NFT_CT_STATE:
		return nft.Native32(expr.CtStateBitNEW), true, nil
	case unix.NFT_CT_STATUS:
		if p.Rewritten {
			return nft.Native32(nft.StatusDNAT), true, nil
		}
		return nft.Native32(0), true, nil
	case unix.NFT_CT_DIRECTION:
		return []byte{0}, true, nil // IP_CT_DIR_ORIGINAL
	case unix.NFT_CT_MARK:
		return nft.Native32(p.flowMark), true, nil
	case unix.NFT_CT_LABELS:
		return p.label[:], true, nil
	case unix.NFT_CT_PROTOCOL:
		return []byte{p.Flow.Proto}, true, nil
	case unix.NFT_CT_PROTO_DST:
		return binary.BigEndian.AppendUint16(nil, p.Flow.DstPort), true, nil
	case unix.NFT_CT_SRC_IP, unix.NFT_CT_SRC_IP6:
		return p.Flow.Src.AsSlice(), p.Flow.Src.Is4() == (key == unix.NFT_CT_SRC_IP), nil
	case unix.NFT_CT_DST_IP, unix.NFT_CT_DST_IP6:
		return p.Flow.Dst.AsSlice(), p.Flow.Dst.Is4() == (key == unix.NFT_CT_DST_IP), nil
	}
	return nil, true, unknown("flow key %d is not known", key)
}

// meta is what the kernel knows of the packet beside its bytes.
func (p *Packet) meta(key uint32) ([]byte, error) {
	switch {
	case key == unix.NFT_META_IIF:
		return nft.Native32(index(p.IIF)), nil
	case key == unix.NFT_META_OIF:
		return nft.Native32(index(p.OIF)), nil
	case key == unix.NFT_META_PKTTYPE:
		return []byte{unix.PACKET_HOST}, nil
	case p.Partial && (key == unix.NFT_META_MARK || key == unix.NFT_META_PRIORITY):
		return nil, unknown("packet key %d", key)
	case p.Partial && key == unix.NFT_META_NFPROTO && p.V6:
		return []byte{unix.NFPROTO_IPV6}, nil
	case p.Partial && key == unix.NFT_META_NFPROTO:
		return []byte{unix.NFPROTO_IPV4}, nil
	}
	switch key {
	case unix.NFT_META_IIFNAME:
		return nft.IfName(p.IIF), nil
	case unix.NFT_META_OIFNAME:
		return nft.IfName(p.OIF), nil
	case unix.NFT_META_NFPROTO:
		return []byte{nft.IPOf(p.Dst).NFProto}, nil
	case unix.NFT_META_L4PROTO:
		return []byte{p.Flow.Proto}, nil
	case unix.NFT_META_MARK:
		return nft.Native32(p.Mark), nil
	case unix.NFT_META_PRIORITY:
		return nft.Native32(p.priority), nil
	}
	return nil, unknown("packet key %d is not known", key)
}

// index is an interface's, for rules that name it by that; none has the last number.
func index(name string) uint32 {
	if i, err := net.InterfaceByName(name); err == nil {
		return uint32(i.Index)
	}
	return 1<<32 - 1
}
