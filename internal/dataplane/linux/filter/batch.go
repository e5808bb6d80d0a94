package filter

import (
	"encoding/binary"
	"fmt"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// Message types of nf_tables that golang.org/x/sys does not name
// (include/uapi/linux/netfilter/nf_tables.h).
const (
	msgDestroySetElem = 30 // DESTROYSETELEM, since Linux 6.3: like DELSETELEM, without ENOENT
	tableFlagOwner    = 0x2
	tableFlagPersist  = 0x4 // since Linux 6.9
)

const family = unix.NFPROTO_INET

// batch collects the messages of one nf_tables transaction. The kernel applies all of
// them at once, between two packets, or none.
//
// google/nftables has a batch of its own, but it writes table flags as 0, hides which
// message failed and knows no "destroy"; its expressions are used as they are.
type batch struct {
	table  string
	suffix string // of the names of sets and of chains that are no base chains
	ops    []op
	err    error // the first message that could not be encoded
}

// op remembers what a message was for: errors name it, and a delete of an element that
// has just expired can be left out of a second try.
type op struct {
	what   string
	header uint16
	flags  netlink.HeaderFlags
	body   []byte
	isDel  bool
}

func (b *batch) add(what string, typ uint16, flags netlink.HeaderFlags, attrs []netlink.Attribute) {
	body, err := netlink.MarshalAttributes(attrs)
	if err != nil && b.err == nil {
		b.err = fmt.Errorf("encode %s: %w", what, err)
		return
	}
	b.ops = append(b.ops, op{
		what:   what,
		header: uint16(unix.NFNL_SUBSYS_NFTABLES)<<8 | typ,
		flags:  flags,
		body:   append([]byte{family, unix.NFNETLINK_V0, 0, 0}, body...),
		isDel:  typ == unix.NFT_MSG_DELSETELEM,
	})
}

func (b *batch) empty() bool { return len(b.ops) == 0 }

// bytes gives the datagram: begin, the messages, end. Only the last message asks for an
// acknowledgement; errors of any of them come anyway.
func (b *batch) bytes(seq, port uint32) []byte {
	size := 2 * 20
	for _, o := range b.ops {
		size += align(16 + len(o.body))
	}
	buf := make([]byte, 0, size)
	msg := func(typ uint16, flags netlink.HeaderFlags, body []byte) {
		n := 16 + len(body)
		buf = binary.NativeEndian.AppendUint32(buf, uint32(n))
		buf = binary.NativeEndian.AppendUint16(buf, typ)
		buf = binary.NativeEndian.AppendUint16(buf, uint16(flags))
		buf = binary.NativeEndian.AppendUint32(buf, seq)
		buf = binary.NativeEndian.AppendUint32(buf, port)
		buf = append(buf, body...)
		for range align(n) - n {
			buf = append(buf, 0)
		}
		seq++
	}
	edge := []byte{0, unix.NFNETLINK_V0, 0, unix.NFNL_SUBSYS_NFTABLES}
	msg(unix.NFNL_MSG_BATCH_BEGIN, netlink.Request, edge)
	for i, o := range b.ops {
		flags := o.flags | netlink.Request
		if i == len(b.ops)-1 {
			flags |= netlink.Acknowledge
		}
		msg(o.header, flags, o.body)
	}
	msg(unix.NFNL_MSG_BATCH_END, netlink.Request, edge)
	return buf
}

func align(n int) int { return (n + 3) &^ 3 }

func native32(v uint32) []byte { return binary.NativeEndian.AppendUint32(nil, v) }

func be32(v uint32) []byte { return binary.BigEndian.AppendUint32(nil, v) }
func be64(v uint64) []byte { return binary.BigEndian.AppendUint64(nil, v) }
func cstr(s string) []byte { return append([]byte(s), 0) }

func nested(typ uint16, attrs ...netlink.Attribute) netlink.Attribute {
	b, err := netlink.MarshalAttributes(attrs)
	if err != nil {
		panic(err) // only for an attribute over 64 KiB, which chunking excludes
	}
	return netlink.Attribute{Type: typ | unix.NLA_F_NESTED, Data: b}
}

// addTable makes the table, or takes over one that an owner left behind.
func (b *batch) addTable(flags uint32) {
	b.add("add table", unix.NFT_MSG_NEWTABLE, netlink.Create, []netlink.Attribute{
		{Type: unix.NFTA_TABLE_NAME, Data: cstr(b.table)},
		{Type: unix.NFTA_TABLE_FLAGS, Data: be32(flags)},
	})
}

func (b *batch) delTable() {
	b.add("delete table", unix.NFT_MSG_DELTABLE, 0, []netlink.Attribute{
		{Type: unix.NFTA_TABLE_NAME, Data: cstr(b.table)},
	})
}

// hook places a base chain.
type hook struct {
	kind     string // "filter", "nat"
	num      uint32
	priority int32
}

func (b *batch) addChain(name string, h *hook) {
	attrs := []netlink.Attribute{
		{Type: unix.NFTA_CHAIN_TABLE, Data: cstr(b.table)},
		{Type: unix.NFTA_CHAIN_NAME, Data: cstr(name)},
	}
	if h != nil {
		attrs = append(attrs,
			nested(unix.NFTA_CHAIN_HOOK,
				netlink.Attribute{Type: unix.NFTA_HOOK_HOOKNUM, Data: be32(h.num)},
				netlink.Attribute{Type: unix.NFTA_HOOK_PRIORITY, Data: be32(uint32(h.priority))}),
			netlink.Attribute{Type: unix.NFTA_CHAIN_POLICY, Data: be32(1)}, // NF_ACCEPT
			netlink.Attribute{Type: unix.NFTA_CHAIN_TYPE, Data: cstr(h.kind)})
	}
	b.add("add chain "+name, unix.NFT_MSG_NEWCHAIN, netlink.Create, attrs)
}

// flushChain removes a chain's rules.
func (b *batch) flushChain(name string) {
	b.add("flush chain "+name, unix.NFT_MSG_DELRULE, 0, []netlink.Attribute{
		{Type: unix.NFTA_RULE_TABLE, Data: cstr(b.table)},
		{Type: unix.NFTA_RULE_CHAIN, Data: cstr(name)},
	})
}

func (b *batch) delChain(name string) {
	b.add("delete chain "+name, unix.NFT_MSG_DELCHAIN, 0, []netlink.Attribute{
		{Type: unix.NFTA_CHAIN_TABLE, Data: cstr(b.table)},
		{Type: unix.NFTA_CHAIN_NAME, Data: cstr(name)},
	})
}

func (b *batch) addRule(r rule) {
	var list []byte
	for _, e := range r.stmts {
		item, err := netlink.MarshalAttributes([]netlink.Attribute{{Type: unix.NFTA_LIST_ELEM | unix.NLA_F_NESTED, Data: e}})
		if err != nil && b.err == nil {
			b.err = fmt.Errorf("encode a rule of %s: %w", r.chain, err)
			return
		}
		list = append(list, item...)
	}
	b.add("add rule to "+r.chain, unix.NFT_MSG_NEWRULE, netlink.Create|netlink.Append, []netlink.Attribute{
		{Type: unix.NFTA_RULE_TABLE, Data: cstr(b.table)},
		{Type: unix.NFTA_RULE_CHAIN, Data: cstr(r.chain)},
		{Type: unix.NFTA_RULE_EXPRESSIONS | unix.NLA_F_NESTED, Data: list},
	})
}
