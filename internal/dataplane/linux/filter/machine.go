package filter

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net/netip"

	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"vpnd/internal/dataplane"
)

// A machine does with a packet what the kernel would do with it: it runs the rules as
// they were read back from there. It knows the statements that our rules are made of and
// refuses to judge by any other.
type machine struct {
	from    reader
	packet  packet
	regs    [64]byte // sixteen registers of 4 bytes
	verdict verdict
}

// reader is where the rules and elements come from.
type reader interface {
	// hooked says whether there is a base chain of this name at this hook.
	hooked(chain string, hook uint32) (bool, error)
	// rules are those of a chain, each as its steps.
	rules(chain string) ([][]step, error)
	// find looks up an element; regs begin with its key.
	find(set string, regs []byte) (mapped, bool, error)
}

// mapped is what an element of a map maps to.
type mapped struct {
	data    []byte
	verdict verdict
}

// step is one statement of a rule. It says whether the rule goes on.
type step func(*machine) (bool, error)

// verdict is what a rule says of a packet; code 0 is a drop (nf_tables(7), NF_* and NFT_*).
type verdict struct {
	code  int32
	chain string
}

const (
	verdictDrop   = 0 // NF_DROP
	verdictAccept = 1 // NF_ACCEPT
)

// fate is what a chain does with a packet.
type fate int

const (
	undecided fate = iota // goes on behind the rule or chain
	accepted
	dropped
)

// packet is the first packet of a flow on its way through the hooks.
type packet struct {
	flow      dataplane.Flow // as conntrack keeps it: before any rewriting
	dst       netip.Addr     // as it is rewritten
	port      uint16
	iif, oif  string
	mark      uint32
	priority  uint32
	flowMark  uint32
	label     [16]byte // of the flow
	rewritten bool
}

// elsewhere is the name of an interface that no rule has.
const elsewhere = "\x01"

// depth is how far the kernel lets chains jump (NFT_JUMP_STACK_SIZE).
const depth = 16

// hook runs a base chain; one that is not there lets everything pass.
func (m *machine) hook(chain string, hook uint32) (fate, error) {
	there, err := m.from.hooked(chain, hook)
	if err != nil || !there {
		return accepted, err
	}
	f, err := m.chain(chain, 0)
	if f == undecided {
		f = accepted // the chains' policy
	}
	return f, err
}

// chain runs a chain; undecided means that it came to its end.
func (m *machine) chain(name string, level int) (fate, error) {
	if level > depth {
		return undecided, fmt.Errorf("chain %s: more than %d jumps", name, depth)
	}
	rules, err := m.from.rules(name)
	if err != nil {
		return undecided, err
	}
	for n, r := range rules {
		through, err := m.rule(r)
		if err != nil {
			return undecided, fmt.Errorf("chain %s, rule %d: %w", name, n+1, err)
		}
		if !through {
			continue
		}
		switch v := m.verdict; v.code {
		case verdictAccept:
			return accepted, nil
		case verdictDrop:
			return dropped, nil
		case unix.NFT_RETURN:
			return undecided, nil
		case unix.NFT_GOTO:
			return m.chain(v.chain, level+1)
		case unix.NFT_JUMP:
			if f, err := m.chain(v.chain, level+1); f != undecided || err != nil {
				return f, err
			}
		case unix.NFT_CONTINUE:
		default:
			return undecided, fmt.Errorf("chain %s, rule %d: verdict %d is not known", name, n+1, v.code)
		}
	}
	return undecided, nil
}

// rule runs a rule; through is false if it does not match. The verdict stands in m.
func (m *machine) rule(r []step) (through bool, err error) {
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
func (m *machine) load(at uint32, v []byte) error {
	n := uint32(len(v)+3) &^ 3
	if at+n > uint32(len(m.regs)) {
		return fmt.Errorf("%d bytes do not fit into the registers at %d", len(v), at)
	}
	clear(m.regs[at : at+n])
	copy(m.regs[at:], v)
	return nil
}

func (m *machine) get32(at uint32) uint32 { return binary.NativeEndian.Uint32(m.regs[at:]) }

func matches(e *expr.Cmp, v []byte) bool {
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
func (p *packet) network() []byte {
	if p.dst.Is4() {
		h := make([]byte, 20)
		h[0], h[9] = 0x45, p.flow.Proto
		copy(h[ip4.srcOff:], p.flow.Src.AsSlice())
		copy(h[ip4.dstOff:], p.dst.AsSlice())
		return h
	}
	h := make([]byte, 40)
	h[0], h[6] = 6<<4, p.flow.Proto
	copy(h[ip6.srcOff:], p.flow.Src.AsSlice())
	copy(h[ip6.dstOff:], p.dst.AsSlice())
	return h
}

// transport is the header behind it: a SYN, an echo request, or ports alone.
func (p *packet) transport() []byte {
	switch p.flow.Proto {
	case unix.IPPROTO_ICMP:
		return []byte{echo4, 0, 0, 0, 0, 0, 0, 0}
	case unix.IPPROTO_ICMPV6:
		return []byte{echo6, 0, 0, 0, 0, 0, 0, 0}
	}
	h := make([]byte, 20)
	binary.BigEndian.PutUint16(h[2:], p.port)
	if p.flow.Proto == unix.IPPROTO_TCP {
		h[12], h[13] = 5<<4, 0x02
	}
	return h
}

// Types of echo requests (RFC 792, RFC 4443).
const echo4, echo6 = 8, 128

// tracked is a key of the flow's original tuple or state; ok is false if the flow, being
// of the other family, has no such thing.
func (p *packet) tracked(key uint32) (v []byte, ok bool, err error) {
	switch key {
	case unix.NFT_CT_STATE:
		return native32(expr.CtStateBitNEW), true, nil
	case unix.NFT_CT_STATUS:
		if p.rewritten {
			return native32(statusDNAT), true, nil
		}
		return native32(0), true, nil
	case unix.NFT_CT_MARK:
		return native32(p.flowMark), true, nil
	case unix.NFT_CT_LABELS:
		return p.label[:], true, nil
	case unix.NFT_CT_PROTOCOL:
		return []byte{p.flow.Proto}, true, nil
	case unix.NFT_CT_PROTO_DST:
		return binary.BigEndian.AppendUint16(nil, p.flow.DstPort), true, nil
	case unix.NFT_CT_SRC_IP, unix.NFT_CT_SRC_IP6:
		return p.flow.Src.AsSlice(), p.flow.Src.Is4() == (key == unix.NFT_CT_SRC_IP), nil
	case unix.NFT_CT_DST_IP, unix.NFT_CT_DST_IP6:
		return p.flow.Dst.AsSlice(), p.flow.Dst.Is4() == (key == unix.NFT_CT_DST_IP), nil
	}
	return nil, false, fmt.Errorf("flow key %d is not known", key)
}

// meta is what the kernel knows of the packet beside its bytes.
func (p *packet) meta(key uint32) ([]byte, error) {
	switch key {
	case unix.NFT_META_IIFNAME:
		return ifname(p.iif), nil
	case unix.NFT_META_OIFNAME:
		return ifname(p.oif), nil
	case unix.NFT_META_NFPROTO:
		return []byte{ipOf(p.dst).nfproto}, nil
	case unix.NFT_META_L4PROTO:
		return []byte{p.flow.Proto}, nil
	case unix.NFT_META_MARK:
		return native32(p.mark), nil
	case unix.NFT_META_PRIORITY:
		return native32(p.priority), nil
	}
	return nil, fmt.Errorf("packet key %d is not known", key)
}
