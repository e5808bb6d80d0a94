// Package run says what becomes of a packet in rules as the kernel has them: it reads them
// back and runs them, and changes nothing.
package run

import (
	"encoding/binary"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// A Machine does with a packet what the kernel would do with it: it runs rules as they were
// read back from there, ours and other people's. Of a rule that it cannot tell whether it
// matches, by a statement or by what is not known of the packet, it says so in Doubt.
type Machine struct {
	From   Reader
	Packet Packet
	Doubt  error  // the first rule that may match or not; what was returned holds if it does not
	Where  string // the chain that decided

	regs    [64]byte // sixteen registers of 4 bytes
	blank   uint16   // those whose value is not known, a bit each
	verdict verdict
}

// Unknown says what cannot be told.
type Unknown string

func (u Unknown) Error() string { return string(u) }

func unknown(format string, args ...any) error { return Unknown(fmt.Sprintf(format, args...)) }

// Reader is where the rules and elements come from.
type Reader interface {
	// Hooked says whether there is a base chain of this name at this hook.
	Hooked(chain string, hook uint32) (bool, error)
	// Rules are those of a chain, each as its steps.
	Rules(chain string) ([][]Step, error)
	// Find looks up an element; regs begin with its key, as far as that is known.
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

// elsewhere is the name of an interface that no rule has.
const Elsewhere = "\x01"

// depth is how far the kernel lets chains jump (NFT_JUMP_STACK_SIZE).
const depth = 16

// Run runs a base chain that is there; Undecided leaves the packet to the chain's policy.
func (m *Machine) Run(chain string) (Fate, error) { return m.chain(chain, 0) }

// Hook runs a base chain of ours; one that is not there lets everything pass.
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
		var u Unknown
		if errors.As(err, &u) {
			if m.Doubt == nil {
				m.Doubt = fmt.Errorf("chain %s, rule %d: %w", name, n+1, err)
			}
			continue
		}
		if err != nil {
			return Undecided, fmt.Errorf("chain %s, rule %d: %w", name, n+1, err)
		}
		if !through {
			continue
		}
		switch v := m.verdict; v.code {
		case verdictAccept:
			m.Where = name
			return Accepted, nil
		case verdictDrop:
			m.Where = name
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
	m.blank &^= words(at, n)
	return nil
}

// forget says that n bytes from at on are not known.
func (m *Machine) forget(at, n uint32) { m.blank |= words(at, n) }

// loadIf loads v, or forgets what was there when err says that v is not known.
func (m *Machine) loadIf(at uint32, v []byte, err error) (bool, error) {
	var u Unknown
	if errors.As(err, &u) {
		m.forget(at, 16)
		return true, nil
	}
	if err != nil {
		return false, err
	}
	return true, m.load(at, v)
}

// read gives n bytes from at on.
func (m *Machine) read(at, n uint32) ([]byte, error) {
	if at+n > uint32(len(m.regs)) {
		return nil, fmt.Errorf("%d bytes at %d are not in the registers", n, at)
	}
	if m.blank&words(at, n) != 0 {
		return nil, unknown("it looks at what is not known of the packet")
	}
	return m.regs[at : at+n], nil
}

// known are the registers from at on, up to the first that is not known.
func (m *Machine) known(at uint32) []byte {
	end := at
	for end < uint32(len(m.regs)) && m.blank&words(end, 4) == 0 {
		end += 4
	}
	return m.regs[at:end]
}

// words has a bit for each register that n bytes from at on touch.
func words(at, n uint32) (bits uint16) {
	for i := at / 4; i*4 < at+n && i < 16; i++ {
		bits |= 1 << i
	}
	return bits
}

func (m *Machine) get32(at uint32) uint32 { return binary.NativeEndian.Uint32(m.regs[at:]) }
