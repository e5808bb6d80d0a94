// Package run says what becomes of a packet in rules as the kernel has them: it reads them
// back and runs them, and changes nothing.
package run

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net/netip"

	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"vpnd/internal/dataplane"
	"vpnd/internal/dataplane/linux/nft"
)

// A Machine does with a packet what the kernel would do with it: it runs the rules as
// they were read back from there. It knows the statements that our rules are made of and
// refuses to judge by any other.
type Machine struct {
	From    Reader
	Packet  Packet
	regs    [64]byte // sixteen registers of 4 bytes
	verdict verdict
}

// Reader is where the rules and elements come from.
type Reader interface {
	// Hooked says whether there is a base chain of this name at this hook.
	Hooked(chain string, hook uint32) (bool, error)
	// Rules are those of a chain, each as its steps.
	Rules(chain string) ([][]Step, error)
	// Find looks up an element; regs begin with its key.
	Find(set string, regs []byte) (Mapped, bool, error)
}

// Mapped is what an element of a map maps to.
type Mapped struct {
	Data    []byte
	verdict verdict
}

// Step is one statement of a rule. It says whether the rule goes on.
type Step func(*Machine) (bool, error)

// verdict is what a rule says of a packet; code 0 is a drop (nf_tables(7), NF_* and NFT_*).
type verdict struct {
	code  int32
	chain string
}

const (
	verdictDrop   = 0 // NF_DROP
	verdictAccept = 1 // NF_ACCEPT
)

// Fate is what a chain does with a packet.
type Fate int

const (
	Undecided Fate = iota // goes on behind the rule or chain
	Accepted
	Dropped
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
}

// elsewhere is the name of an interface that no rule has.
const Elsewhere = "\x01"

// depth is how far the kernel lets chains jump (NFT_JUMP_STACK_SIZE).
const depth = 16

// Hook runs a base chain; one that is not there lets everything pass.
func (m *Machine) Hook(chain string, hook uint32) (Fate, error) {
	there, err := m.From.Hooked(chain, hook)
	if err != nil || !there {
		return Accepted, err
	}
	f, err := m.chain(chain, 0)
	if f == Undecided {
		f = Accepted // the chains' policy
	}
	return f, err
}

// chain runs a chain; undecided means that it came to its end.
func (m *Machine) chain(name string, level int) (Fate, error) {
	if level > depth {
		return Undecided, fmt.Errorf("chain %s: more than %d jumps", name, depth)
	}
	rules, err := m.From.Rules(name)
	if err != nil {
		return Undecided, err
	}
	for n, r := range rules {
		through, err := m.rule(r)
		if err != nil {
			return Undecided, fmt.Errorf("chain %s, rule %d: %w", name, n+1, err)
		}
		if !through {
			continue
		}
		switch v := m.verdict; v.code {
		case verdictAccept:
			return Accepted, nil
		case verdictDrop:
			return Dropped, nil
		case unix.NFT_RETURN:
			return Undecided, nil
		case unix.NFT_GOTO:
			return m.chain(v.chain, level+1)
		case unix.NFT_JUMP:
			if f, err := m.chain(v.chain, level+1); f != Undecided || err != nil {
				return f, err
			}
		case unix.NFT_CONTINUE:
		default:
			return Undecided, fmt.Errorf("chain %s, rule %d: verdict %d is not known", name, n+1, v.code)
		}
	}
	return Undecided, nil
}

// rule runs a rule; through is false if it does not match. The verdict stands in m.
func (m *Machine) rule(r []Step) (through bool, err error) {
	m.verdict = verdict{code: unix.NFT_CONTINUE}
	for _, s := range r {
		if on, err := s(m); err != nil || !on {
			return false, err
		}
		if m.verdict.code != unix.NFT_CONTINUE {
			break
		}
	}
	return true, nil
}

// load puts v into registers from at, filled up with zeros to whole ones.
func (m *Machine) load(at uint32, v []byte) error {
	n := uint32(len(v)+3) &^ 3
	if at+n > uint32(len(m.regs)) {
		return fmt.Errorf("%d bytes do not fit into the registers at %d", len(v), at)
	}
	clear(m.regs[at : at+n])
	copy(m.regs[at:], v)
	return nil
}

func (m *Machine) get32(at uint32) uint32 { return binary.NativeEndian.Uint32(m.regs[at:]) }

func Matches(e *expr.Cmp, v []byte) bool {
	if v == nil || len(e.Data) == 0 {
		return false
	}
	n := min(len(v), len(e.Data)) // a name cut short is a prefix: "eth*"
	c := bytes.Compare(v[:n], e.Data[:n])
	switch e.Op {
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
	if reply {
		switch key {
		case unix.NFT_CT_SRC_IP, unix.NFT_CT_SRC_IP6:
			return p.Dst.AsSlice(), p.Dst.Is4() == (key == unix.NFT_CT_SRC_IP), nil
		case unix.NFT_CT_PROTO_SRC:
			return binary.BigEndian.AppendUint16(nil, p.Port), true, nil
		}
		return nil, false, fmt.Errorf("flow key %d of the answers is not known", key)
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
	return nil, false, fmt.Errorf("flow key %d is not known", key)
}

// meta is what the kernel knows of the packet beside its bytes.
func (p *Packet) meta(key uint32) ([]byte, error) {
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
	return nil, fmt.Errorf("packet key %d is not known", key)
}
