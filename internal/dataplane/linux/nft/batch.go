// Package nft speaks nf_tables: transactions of tables, chains, rules, sets and elements,
// the statements that rules are made of, and the socket by which they go. It knows nothing
// of what they are for.
package nft

import (
	"cmp"
	"encoding/binary"
	"fmt"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// Message types of nf_tables that golang.org/x/sys does not name
// (include/uapi/linux/netfilter/nf_tables.h).
const (
	MsgDestroySetElem = 30 // DESTROYSETELEM, since Linux 6.3: like DELSETELEM, without ENOENT
	TableFlagOwner    = 0x2
	TableFlagPersist  = 0x4 // since Linux 6.9
)

const Inet = unix.NFPROTO_INET

// Batch collects the messages of one nf_tables transaction. The kernel applies all of
// them at once, between two packets, or none.
//
// google/nftables has a batch of its own, but it writes table flags as 0, hides which
// message failed and knows no "destroy"; its expressions are used as they are.
type Batch struct {
	Family byte // of the table; 0: inet
	Table  string
	Suffix string // of the names of sets and of chains that are no base chains
	Ops    []op
	Err    error // the first message that could not be encoded
}

// op remembers what a message was for: errors name it, and a delete of an element that
// has just expired can be left out of a second try.
type op struct {
	what   string
	Header uint16
	Flags  netlink.HeaderFlags
	Body   []byte
	isDel  bool
}

func (b *Batch) Add(what string, typ uint16, flags netlink.HeaderFlags, attrs []netlink.Attribute) {
	body, err := netlink.MarshalAttributes(attrs)
	if err != nil && b.Err == nil {
		b.Err = fmt.Errorf("encode %s: %w", what, err)
		return
	}
	b.Ops = append(b.Ops, op{
		what:   what,
		Header: uint16(unix.NFNL_SUBSYS_NFTABLES)<<8 | typ,
		Flags:  flags,
		Body:   append([]byte{cmp.Or(b.Family, Inet), unix.NFNETLINK_V0, 0, 0}, body...),
		isDel:  typ == unix.NFT_MSG_DELSETELEM,
	})
}

func (b *Batch) empty() bool { return len(b.Ops) == 0 }

// bytes gives the datagram: begin, the messages, end. Only the last message asks for an
// acknowledgement; errors of any of them come anyway.
func (b *Batch) bytes(seq, port uint32) []byte {
	size := 2 * 20
	for _, o := range b.Ops {
		size += align(16 + len(o.Body))
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
	for i, o := range b.Ops {
		flags := o.Flags | netlink.Request
		if i == len(b.Ops)-1 {
			flags |= netlink.Acknowledge
		}
		msg(o.Header, flags, o.Body)
	}
	msg(unix.NFNL_MSG_BATCH_END, netlink.Request, edge)
	return buf
}

func align(n int) int { return (n + 3) &^ 3 }

func Native32(v uint32) []byte { return binary.NativeEndian.AppendUint32(nil, v) }

func be32(v uint32) []byte    { return binary.BigEndian.AppendUint32(nil, v) }
func be64(v uint64) []byte    { return binary.BigEndian.AppendUint64(nil, v) }
func CString(s string) []byte { return append([]byte(s), 0) }

func Nested(typ uint16, attrs ...netlink.Attribute) netlink.Attribute {
	b, err := netlink.MarshalAttributes(attrs)
	if err != nil {
		panic(err) // only for an attribute over 64 KiB, which chunking excludes
	}
	return netlink.Attribute{Type: typ | unix.NLA_F_NESTED, Data: b}
}

// AddTable makes the table, or takes over one that an owner left behind.
func (b *Batch) AddTable(flags uint32) {
	b.Add("add table", unix.NFT_MSG_NEWTABLE, netlink.Create, []netlink.Attribute{
		{Type: unix.NFTA_TABLE_NAME, Data: CString(b.Table)},
		{Type: unix.NFTA_TABLE_FLAGS, Data: be32(flags)},
	})
}

func (b *Batch) DelTable() {
	b.Add("delete table", unix.NFT_MSG_DELTABLE, 0, []netlink.Attribute{
		{Type: unix.NFTA_TABLE_NAME, Data: CString(b.Table)},
	})
}

// Hook places a base chain.
type Hook struct {
	Kind     string // "filter", "nat"
	Num      uint32
	Priority int32
}

func (b *Batch) AddChain(name string, h *Hook) {
	attrs := []netlink.Attribute{
		{Type: unix.NFTA_CHAIN_TABLE, Data: CString(b.Table)},
		{Type: unix.NFTA_CHAIN_NAME, Data: CString(name)},
	}
	if h != nil {
		attrs = append(attrs,
			Nested(unix.NFTA_CHAIN_HOOK,
				netlink.Attribute{Type: unix.NFTA_HOOK_HOOKNUM, Data: be32(h.Num)},
				netlink.Attribute{Type: unix.NFTA_HOOK_PRIORITY, Data: be32(uint32(h.Priority))}),
			netlink.Attribute{Type: unix.NFTA_CHAIN_POLICY, Data: be32(1)}, // NF_ACCEPT
			netlink.Attribute{Type: unix.NFTA_CHAIN_TYPE, Data: CString(h.Kind)})
	}
	b.Add("add chain "+name, unix.NFT_MSG_NEWCHAIN, netlink.Create, attrs)
}

// FlushChain removes a chain's rules.
func (b *Batch) FlushChain(name string) {
	b.Add("flush chain "+name, unix.NFT_MSG_DELRULE, 0, []netlink.Attribute{
		{Type: unix.NFTA_RULE_TABLE, Data: CString(b.Table)},
		{Type: unix.NFTA_RULE_CHAIN, Data: CString(name)},
	})
}

func (b *Batch) DelChain(name string) {
	b.Add("delete chain "+name, unix.NFT_MSG_DELCHAIN, 0, []netlink.Attribute{
		{Type: unix.NFTA_CHAIN_TABLE, Data: CString(b.Table)},
		{Type: unix.NFTA_CHAIN_NAME, Data: CString(name)},
	})
}

func (b *Batch) AddRule(r Rule) {
	var list []byte
	for _, e := range r.Stmts {
		item, err := netlink.MarshalAttributes([]netlink.Attribute{{Type: unix.NFTA_LIST_ELEM | unix.NLA_F_NESTED, Data: e}})
		if err != nil && b.Err == nil {
			b.Err = fmt.Errorf("encode a rule of %s: %w", r.Chain, err)
			return
		}
		list = append(list, item...)
	}
	b.Add("add rule to "+r.Chain, unix.NFT_MSG_NEWRULE, netlink.Create|netlink.Append, []netlink.Attribute{
		{Type: unix.NFTA_RULE_TABLE, Data: CString(b.Table)},
		{Type: unix.NFTA_RULE_CHAIN, Data: CString(r.Chain)},
		{Type: unix.NFTA_RULE_EXPRESSIONS | unix.NLA_F_NESTED, Data: list},
	})
}
