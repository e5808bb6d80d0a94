package run

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"vpnd/internal/dataplane/linux/nft"
)

// Kernel reads the table that is in force, as much of it as one packet needs: the chains
// that it comes to, and single elements. So it costs the same with fifty thousand devices
// as with ten. Only the sets of prefixes, which come from the policy, are read whole.
type Kernel struct {
	family byte // of the table; 0: inet
	table  string
	ctx    context.Context
	conn   *netlink.Conn
	sets   map[string]KernelSet
	chains map[string][][]Step
}

// KernelSet is what the kernel says of a set.
type KernelSet struct {
	KeyLen   uint32
	Interval bool
	pieces   bool // a concatenation of intervals
}

func Open(ctx context.Context, table string) (*Kernel, error) { return OpenFamily(ctx, 0, table) }

// OpenFamily is Open for a table of any family.
func OpenFamily(ctx context.Context, family byte, table string) (*Kernel, error) {
	conn, err := netlink.Dial(unix.NETLINK_NETFILTER, nil)
	if err != nil {
		return nil, fmt.Errorf("open nf_tables: %w", err)
	}
	return &Kernel{family: family, chains: make(map[string][][]Step), table: table, ctx: ctx, conn: conn, sets: make(map[string]KernelSet)}, nil
}

func (k *Kernel) Close() { _ = k.conn.Close() }

// Ask sends one request and returns the attributes of each answer. A list that somebody
// changed while it was read is read again.
func (k *Kernel) Ask(what string, typ uint16, flags netlink.HeaderFlags, attrs ...netlink.Attribute) ([]nft.Attributes, error) {
	b := &nft.Batch{Table: k.table, Family: k.family}
	b.Add(what, typ, flags|netlink.Request, attrs)
	if b.Err != nil {
		return nil, b.Err
	}
	for try := 0; ; try++ {
		if err := k.ctx.Err(); err != nil {
			return nil, err
		}
		msgs, err := k.conn.Execute(netlink.Message{
			Header: netlink.Header{Type: netlink.HeaderType(b.Ops[0].Header), Flags: b.Ops[0].Flags},
			Data:   b.Ops[0].Body,
		})
		if err != nil {
			return nil, fmt.Errorf("%s: %w", what, err)
		}
		out := make([]nft.Attributes, 0, len(msgs))
		torn := false
		for _, m := range msgs {
			torn = torn || m.Header.Flags&netlink.DumpInterrupted != 0
			if len(m.Data) < 4 {
				continue
			}
			a, err := nft.ReadAttributes(m.Data[4:])
			if err != nil {
				return nil, fmt.Errorf("%s: %w", what, err)
			}
			out = append(out, a)
		}
		if !torn {
			return out, nil
		}
		if try == 10 {
			return nil, fmt.Errorf("%s: nf_tables changed %d times while it was read", what, try)
		}
	}
}

// missing says that the kernel knows no such table, chain, set or element.
func missing(err error) bool { return errors.Is(err, unix.ENOENT) }

// Exists says whether the table exists.
func (k *Kernel) Exists() (bool, error) {
	_, err := k.Ask("read table "+k.table, unix.NFT_MSG_GETTABLE, 0, netlink.Attribute{Type: unix.NFTA_TABLE_NAME, Data: nft.CString(k.table)})
	if missing(err) {
		return false, nil
	}
	return err == nil, err
}

func (k *Kernel) Hooked(chain string, hook uint32) (bool, error) {
	list, err := k.Ask("read chain "+chain, unix.NFT_MSG_GETCHAIN, 0,
		netlink.Attribute{Type: unix.NFTA_CHAIN_TABLE, Data: nft.CString(k.table)},
		netlink.Attribute{Type: unix.NFTA_CHAIN_NAME, Data: nft.CString(chain)})
	if missing(err) {
		return false, nil
	}
	if err != nil || len(list) == 0 || list[0][unix.NFTA_CHAIN_HOOK] == nil {
		return false, err
	}
	h, err := nft.ReadAttributes(list[0][unix.NFTA_CHAIN_HOOK])
	return err == nil && h.U32(unix.NFTA_HOOK_HOOKNUM) == hook, err
}

// Rules are read once from each chain.
func (k *Kernel) Rules(chain string) ([][]Step, error) {
	if r, ok := k.chains[chain]; ok {
		return r, nil
	}
	list, err := k.Ask("list rules of chain "+chain, unix.NFT_MSG_GETRULE, netlink.Dump,
		netlink.Attribute{Type: unix.NFTA_RULE_TABLE, Data: nft.CString(k.table)},
		netlink.Attribute{Type: unix.NFTA_RULE_CHAIN, Data: nft.CString(chain)})
	if err != nil {
		return nil, err
	}
	var out [][]Step
	for n, a := range list {
		r, err := DecodeRule(a[unix.NFTA_RULE_EXPRESSIONS])
		if err != nil {
			return nil, fmt.Errorf("chain %s, rule %d: %w", chain, n+1, err)
		}
		out = append(out, r)
	}
	k.chains[chain] = out
	return out, nil
}

// Set asks once what kind of set it is.
func (k *Kernel) Set(name string) (KernelSet, error) {
	if s, ok := k.sets[name]; ok {
		return s, nil
	}
	list, err := k.Ask("read set "+name, unix.NFT_MSG_GETSET, 0,
		netlink.Attribute{Type: unix.NFTA_SET_TABLE, Data: nft.CString(k.table)},
		netlink.Attribute{Type: unix.NFTA_SET_NAME, Data: nft.CString(name)})
	if err != nil {
		return KernelSet{}, err
	}
	if len(list) == 0 {
		return KernelSet{}, fmt.Errorf("read set %s: no answer", name)
	}
	flags := list[0].U32(unix.NFTA_SET_FLAGS)
	s := KernelSet{list[0].U32(unix.NFTA_SET_KEY_LEN), flags&unix.NFT_SET_INTERVAL != 0, flags&unix.NFT_SET_INTERVAL != 0 && flags&setConcat != 0}
	k.sets[name] = s
	return s, nil
}

func (k *Kernel) Find(name string, regs []byte) (Mapped, bool, error) {
	s, err := k.Set(name)
	if err != nil {
		return Mapped{}, false, err
	}
	if s.pieces {
		return Mapped{}, false, unknown("set %s is one of concatenated intervals", name)
	}
	if uint32(len(regs)) < s.KeyLen {
		return Mapped{}, false, unknown("it looks up what is not known of the packet")
	}
	key := regs[:s.KeyLen]
	ref := []netlink.Attribute{
		{Type: unix.NFTA_SET_ELEM_LIST_TABLE, Data: nft.CString(k.table)},
		{Type: unix.NFTA_SET_ELEM_LIST_SET, Data: nft.CString(name)},
	}
	if s.Interval {
		list, err := k.Ask("list set "+name, unix.NFT_MSG_GETSETELEM, netlink.Dump, ref...)
		if err != nil {
			return Mapped{}, false, err
		}
		return inIntervals(list, key)
	}
	list, err := k.Ask("look up an element of set "+name, unix.NFT_MSG_GETSETELEM, 0,
		append(ref, nft.Nested(unix.NFTA_SET_ELEM_LIST_ELEMENTS, nft.Nested(unix.NFTA_LIST_ELEM,
			nft.Nested(unix.NFTA_SET_ELEM_KEY, netlink.Attribute{Type: unix.NFTA_DATA_VALUE, Data: key}))))...)
	if missing(err) {
		return Mapped{}, false, nil
	}
	if err != nil {
		return Mapped{}, false, err
	}
	elems, err := Elements(list)
	if err != nil || len(elems) != 1 {
		return Mapped{}, false, fmt.Errorf("look up an element of set %s: %d answers, %v", name, len(elems), err)
	}
	v, err := DataOf(elems[0], unix.NFTA_SET_ELEM_DATA)
	return v, err == nil, err
}

// Elements are the elements in the answers to a lookup or a listing.
func Elements(list []nft.Attributes) ([]nft.Attributes, error) {
	var out []nft.Attributes
	for _, a := range list {
		elems, err := netlink.UnmarshalAttributes(a[unix.NFTA_SET_ELEM_LIST_ELEMENTS])
		if err != nil {
			return nil, err
		}
		for _, e := range elems {
			x, err := nft.ReadAttributes(e.Data)
			if err != nil {
				return nil, err
			}
			out = append(out, x)
		}
	}
	return out, nil
}

// inIntervals finds the interval that holds key: the last beginning or end up to it.
func inIntervals(list []nft.Attributes, key []byte) (Mapped, bool, error) {
	elems, err := Elements(list)
	if err != nil {
		return Mapped{}, false, err
	}
	var last nft.Attributes
	var at []byte
	var ends bool
	for _, e := range elems {
		k, err := DataOf(e, unix.NFTA_SET_ELEM_KEY)
		if err != nil {
			return Mapped{}, false, err
		}
		end := e.U32(unix.NFTA_SET_ELEM_FLAGS)&unix.NFT_SET_ELEM_INTERVAL_END != 0
		if bytes.Compare(k.Data, key) > 0 {
			continue
		}
		// Of two at the same address an end comes first.
		if c := bytes.Compare(k.Data, at); last == nil || c > 0 || c == 0 && ends {
			last, at, ends = e, k.Data, end
		}
	}
	if last == nil || ends {
		return Mapped{}, false, nil
	}
	v, err := DataOf(last, unix.NFTA_SET_ELEM_DATA)
	return v, err == nil, err
}

const setConcat = 0x80 // NFT_SET_CONCAT (include/uapi/linux/netfilter/nf_tables.h)
