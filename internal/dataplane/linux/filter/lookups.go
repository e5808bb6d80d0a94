package filter

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// kernel reads the table that is in force, as much of it as one packet needs: the chains
// that it comes to, and single elements. So it costs the same with fifty thousand devices
// as with ten. Only the sets of prefixes, which come from the policy, are read whole.
type kernel struct {
	table string
	ctx   context.Context
	conn  *netlink.Conn
	sets  map[string]kernelSet
}

// kernelSet is what the kernel says of a set.
type kernelSet struct {
	keyLen   uint32
	interval bool
}

func openKernel(ctx context.Context, table string) (*kernel, error) {
	conn, err := netlink.Dial(unix.NETLINK_NETFILTER, nil)
	if err != nil {
		return nil, fmt.Errorf("open nf_tables: %w", err)
	}
	return &kernel{table: table, ctx: ctx, conn: conn, sets: make(map[string]kernelSet)}, nil
}

func (k *kernel) close() { _ = k.conn.Close() }

// ask sends one request and returns the attributes of each answer. A list that somebody
// changed while it was read is read again.
func (k *kernel) ask(what string, typ uint16, flags netlink.HeaderFlags, attrs ...netlink.Attribute) ([]attributes, error) {
	b := &batch{table: k.table}
	b.add(what, typ, flags|netlink.Request, attrs)
	if b.err != nil {
		return nil, b.err
	}
	for try := 0; ; try++ {
		if err := k.ctx.Err(); err != nil {
			return nil, err
		}
		msgs, err := k.conn.Execute(netlink.Message{
			Header: netlink.Header{Type: netlink.HeaderType(b.ops[0].header), Flags: b.ops[0].flags},
			Data:   b.ops[0].body,
		})
		if err != nil {
			return nil, fmt.Errorf("%s: %w", what, err)
		}
		out := make([]attributes, 0, len(msgs))
		torn := false
		for _, m := range msgs {
			torn = torn || m.Header.Flags&netlink.DumpInterrupted != 0
			if len(m.Data) < 4 {
				continue
			}
			a, err := readAttributes(m.Data[4:])
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

// there says whether the table exists.
func (k *kernel) there() (bool, error) {
	_, err := k.ask("read table "+k.table, unix.NFT_MSG_GETTABLE, 0, netlink.Attribute{Type: unix.NFTA_TABLE_NAME, Data: cstr(k.table)})
	if missing(err) {
		return false, nil
	}
	return err == nil, err
}

func (k *kernel) hooked(chain string, hook uint32) (bool, error) {
	list, err := k.ask("read chain "+chain, unix.NFT_MSG_GETCHAIN, 0,
		netlink.Attribute{Type: unix.NFTA_CHAIN_TABLE, Data: cstr(k.table)},
		netlink.Attribute{Type: unix.NFTA_CHAIN_NAME, Data: cstr(chain)})
	if missing(err) {
		return false, nil
	}
	if err != nil || len(list) == 0 || list[0][unix.NFTA_CHAIN_HOOK] == nil {
		return false, err
	}
	h, err := readAttributes(list[0][unix.NFTA_CHAIN_HOOK])
	return err == nil && h.u32(unix.NFTA_HOOK_HOOKNUM) == hook, err
}

func (k *kernel) rules(chain string) ([][]step, error) {
	list, err := k.ask("list rules of chain "+chain, unix.NFT_MSG_GETRULE, netlink.Dump,
		netlink.Attribute{Type: unix.NFTA_RULE_TABLE, Data: cstr(k.table)},
		netlink.Attribute{Type: unix.NFTA_RULE_CHAIN, Data: cstr(chain)})
	if err != nil {
		return nil, err
	}
	var out [][]step
	for n, a := range list {
		r, err := decodeRule(a[unix.NFTA_RULE_EXPRESSIONS])
		if err != nil {
			return nil, fmt.Errorf("chain %s, rule %d: %w", chain, n+1, err)
		}
		out = append(out, r)
	}
	return out, nil
}

// set asks once what kind of set it is.
func (k *kernel) set(name string) (kernelSet, error) {
	if s, ok := k.sets[name]; ok {
		return s, nil
	}
	list, err := k.ask("read set "+name, unix.NFT_MSG_GETSET, 0,
		netlink.Attribute{Type: unix.NFTA_SET_TABLE, Data: cstr(k.table)},
		netlink.Attribute{Type: unix.NFTA_SET_NAME, Data: cstr(name)})
	if err != nil {
		return kernelSet{}, err
	}
	if len(list) == 0 {
		return kernelSet{}, fmt.Errorf("read set %s: no answer", name)
	}
	s := kernelSet{list[0].u32(unix.NFTA_SET_KEY_LEN), list[0].u32(unix.NFTA_SET_FLAGS)&unix.NFT_SET_INTERVAL != 0}
	k.sets[name] = s
	return s, nil
}

func (k *kernel) find(name string, regs []byte) (mapped, bool, error) {
	s, err := k.set(name)
	if err != nil {
		return mapped{}, false, err
	}
	key := regs[:s.keyLen]
	ref := []netlink.Attribute{
		{Type: unix.NFTA_SET_ELEM_LIST_TABLE, Data: cstr(k.table)},
		{Type: unix.NFTA_SET_ELEM_LIST_SET, Data: cstr(name)},
	}
	if s.interval {
		list, err := k.ask("list set "+name, unix.NFT_MSG_GETSETELEM, netlink.Dump, ref...)
		if err != nil {
			return mapped{}, false, err
		}
		return inIntervals(list, key)
	}
	list, err := k.ask("look up an element of set "+name, unix.NFT_MSG_GETSETELEM, 0,
		append(ref, nested(unix.NFTA_SET_ELEM_LIST_ELEMENTS, nested(unix.NFTA_LIST_ELEM,
			nested(unix.NFTA_SET_ELEM_KEY, netlink.Attribute{Type: unix.NFTA_DATA_VALUE, Data: key}))))...)
	if missing(err) {
		return mapped{}, false, nil
	}
	if err != nil {
		return mapped{}, false, err
	}
	elems, err := elementsOf(list)
	if err != nil || len(elems) != 1 {
		return mapped{}, false, fmt.Errorf("look up an element of set %s: %d answers, %v", name, len(elems), err)
	}
	v, err := dataOf(elems[0], unix.NFTA_SET_ELEM_DATA)
	return v, err == nil, err
}

// elementsOf are the elements in the answers to a lookup or a listing.
func elementsOf(list []attributes) ([]attributes, error) {
	var out []attributes
	for _, a := range list {
		elems, err := netlink.UnmarshalAttributes(a[unix.NFTA_SET_ELEM_LIST_ELEMENTS])
		if err != nil {
			return nil, err
		}
		for _, e := range elems {
			x, err := readAttributes(e.Data)
			if err != nil {
				return nil, err
			}
			out = append(out, x)
		}
	}
	return out, nil
}

// inIntervals finds the interval that holds key: the last beginning or end up to it.
func inIntervals(list []attributes, key []byte) (mapped, bool, error) {
	elems, err := elementsOf(list)
	if err != nil {
		return mapped{}, false, err
	}
	var last attributes
	var at []byte
	var ends bool
	for _, e := range elems {
		k, err := dataOf(e, unix.NFTA_SET_ELEM_KEY)
		if err != nil {
			return mapped{}, false, err
		}
		end := e.u32(unix.NFTA_SET_ELEM_FLAGS)&unix.NFT_SET_ELEM_INTERVAL_END != 0
		if bytes.Compare(k.data, key) > 0 {
			continue
		}
		// Of two at the same address an end comes first.
		if c := bytes.Compare(k.data, at); last == nil || c > 0 || c == 0 && ends {
			last, at, ends = e, k.data, end
		}
	}
	if last == nil || ends {
		return mapped{}, false, nil
	}
	v, err := dataOf(last, unix.NFTA_SET_ELEM_DATA)
	return v, err == nil, err
}
