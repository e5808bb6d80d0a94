package nft

import (
	"encoding/binary"
	"strconv"
	"time"
	"unique"

	"github.com/google/nftables/userdata"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// Types as nft(8) numbers them (its include/datatype.h), so that it can list our sets.
const (
	typeInteger     = 4
	typeIPv4        = 7
	typeIPv6        = 8
	TypeInetProto   = 12
	TypeInetService = 13
	TypeMark        = 19
	TypeClassID     = 23 // tc(8) handle, "major:minor"; host byte order, like marks
	typeBits        = 6  // per type in a concatenation
)

// Types of what is concatenated as one.
func Concat(types ...uint32) (typ uint32) {
	for _, t := range types {
		typ = typ<<typeBits | t
	}
	return typ
}

// Set is a set or map of the table.
type Set struct {
	Name     string
	Key      []Field
	Data     uint32 // type of a map's values, which are 4 bytes; 0 for a set
	Wide     uint32 // their length where they are bytes in the order of the network instead
	GoTo     string // a map to verdicts: value n means "goto" the chain of this name and n
	Timeout  bool
	Interval bool
}

type Field struct{ Typ, Len uint32 }

func (s Set) keyLen() (n uint32) {
	for _, f := range s.Key {
		n += (f.Len + 3) &^ 3
	}
	return n
}

// Value is what an element carries.
type Value struct {
	Data  uint32                // of a map
	Wide  unique.Handle[string] // of a wide one; elements are many, so this is small
	Until time.Time             // zero: for ever
}

// Same tells whether two values are one.
func (v Value) Same(o Value) bool {
	return v.Data == o.Data && v.Wide == o.Wide && v.Until.Equal(o.Until)
}

// WideValue is the value of a wide map.
func WideValue(b []byte) Value { return Value{Wide: unique.Make(string(b))} }

func (b *Batch) AddSet(s Set, id uint32) {
	var flags, typ uint32
	for _, f := range s.Key {
		typ = Concat(typ, f.Typ)
	}
	if s.Data != 0 || s.GoTo != "" {
		flags |= unix.NFT_SET_MAP
	}
	if s.Timeout {
		flags |= unix.NFT_SET_TIMEOUT
	}
	if s.Interval {
		flags |= unix.NFT_SET_INTERVAL
	}
	// nft(8) takes the byte order of keys and values from here: 2 is big endian, 1 the host's.
	keyOrder := uint32(2)
	if s.Key[0].Typ == TypeClassID {
		keyOrder = 1
	}
	order := userdata.AppendUint32(nil, userdata.NFTNL_UDATA_SET_KEYBYTEORDER, keyOrder)
	attrs := []netlink.Attribute{
		{Type: unix.NFTA_SET_TABLE, Data: CString(b.Table)},
		{Type: unix.NFTA_SET_NAME, Data: CString(s.Name + b.Suffix)},
		{Type: unix.NFTA_SET_FLAGS, Data: be32(flags)},
		{Type: unix.NFTA_SET_KEY_TYPE, Data: be32(typ)},
		{Type: unix.NFTA_SET_KEY_LEN, Data: be32(s.keyLen())},
		{Type: unix.NFTA_SET_ID, Data: be32(id)},
	}
	if s.Data != 0 {
		dataOrder, n := uint32(1), uint32(4)
		if s.Wide != 0 {
			dataOrder, n = 2, s.Wide
		}
		order = userdata.AppendUint32(order, userdata.NFTNL_UDATA_SET_DATABYTEORDER, dataOrder)
		attrs = append(attrs,
			netlink.Attribute{Type: unix.NFTA_SET_DATA_TYPE, Data: be32(s.Data)},
			netlink.Attribute{Type: unix.NFTA_SET_DATA_LEN, Data: be32(n)})
	}
	if s.GoTo != "" {
		attrs = append(attrs, netlink.Attribute{Type: unix.NFTA_SET_DATA_TYPE, Data: be32(unix.NFT_DATA_VERDICT)})
	}
	attrs = append(attrs, netlink.Attribute{Type: unix.NFTA_SET_USERDATA, Data: order})
	b.Add("add set "+s.Name, unix.NFT_MSG_NEWSET, netlink.Create, attrs)
}

func (b *Batch) DelSet(name string) {
	b.Add("delete set "+name, unix.NFT_MSG_DELSET, 0, []netlink.Attribute{
		{Type: unix.NFTA_SET_TABLE, Data: CString(b.Table)},
		{Type: unix.NFTA_SET_NAME, Data: CString(name + b.Suffix)},
	})
}

// Element is one element on its way to the kernel.
type Element struct {
	Key   string
	Value Value
}

const verdictGoto = 0xfffffffc // NFT_GOTO, -4

// chunk is how many elements go into one message: an attribute holds at most 64 KiB.
const Chunk = 400

// margin is taken off every timeout: the kernel counts from when it handles the message,
// rounds up to its tick (at most 10 ms), and a large transaction takes a while.
const (
	Margin   = 12 * time.Millisecond
	PerOp    = 4 * time.Microsecond
	shortest = time.Millisecond
)

// AddElements adds elements, leaving out what has ended by now. size is the number of
// elements in the whole transaction.
func (b *Batch) AddElements(s Set, elems []Element, clock func() time.Time, size int) {
	now := clock()
	list := elementList{}
	flush := func() {
		if list.n > 0 {
			b.elements("add elements to "+s.Name, unix.NFT_MSG_NEWSETELEM, netlink.Create, s.Name, list)
		}
		list = elementList{}
		now = clock()
	}
	for _, e := range elems {
		left := e.Value.Until.Sub(now) - Margin - time.Duration(size)*PerOp
		if !e.Value.Until.IsZero() && left < shortest {
			continue
		}
		at := list.begin(s, e.Key)
		if s.Data != 0 && (!s.Interval || e.Key[len(e.Key)-1:] == IntervalStart) {
			data := list.open(unix.NFTA_SET_ELEM_DATA)
			if s.Wide != 0 {
				list.attr(unix.NFTA_DATA_VALUE, []byte(e.Value.Wide.Value()))
			} else {
				list.attr(unix.NFTA_DATA_VALUE, Native32(e.Value.Data))
			}
			list.close(data)
		}
		if s.GoTo != "" {
			data := list.open(unix.NFTA_SET_ELEM_DATA)
			verdict := list.open(unix.NFTA_DATA_VERDICT)
			list.attr(unix.NFTA_VERDICT_CODE, be32(verdictGoto))
			list.attr(unix.NFTA_VERDICT_CHAIN, CString(s.GoTo+strconv.Itoa(int(e.Value.Data))+b.Suffix))
			list.close(verdict)
			list.close(data)
		}
		if !e.Value.Until.IsZero() {
			list.attr(unix.NFTA_SET_ELEM_TIMEOUT, be64(uint64(left.Milliseconds())))
		}
		list.close(at)
		if list.n == Chunk {
			flush()
		}
	}
	flush()
}

// DelElements removes elements. verb is DELSETELEM, one element a message, so that one
// that has just ended can be left out; or DESTROYSETELEM, which does not mind.
func (b *Batch) DelElements(s Set, keys []string, verb uint16) {
	n := Chunk
	if verb == unix.NFT_MSG_DELSETELEM {
		n = 1
	}
	for len(keys) > 0 {
		part := keys[:min(n, len(keys))]
		keys = keys[len(part):]
		list := elementList{}
		for _, k := range part {
			list.close(list.begin(s, k))
		}
		b.elements("delete elements of "+s.Name, verb, 0, s.Name, list)
	}
}

func (b *Batch) elements(what string, verb uint16, flags netlink.HeaderFlags, set string, list elementList) {
	b.Add(what, verb, flags, []netlink.Attribute{
		{Type: unix.NFTA_SET_ELEM_LIST_TABLE, Data: CString(b.Table)},
		{Type: unix.NFTA_SET_ELEM_LIST_SET, Data: CString(set + b.Suffix)},
		{Type: unix.NFTA_SET_ELEM_LIST_ELEMENTS | unix.NLA_F_NESTED, Data: list.data},
	})
}

// elementList is a list of elements as netlink attributes. It is encoded by hand: there are
// hundreds of thousands at a time.
type elementList struct {
	data []byte
	n    int
}

// open begins a nested attribute, which close ends.
func (l *elementList) open(typ uint16) (at int) {
	at = len(l.data)
	l.data = binary.NativeEndian.AppendUint16(l.data, 0)
	l.data = binary.NativeEndian.AppendUint16(l.data, typ|unix.NLA_F_NESTED)
	return at
}

func (l *elementList) close(at int) {
	binary.NativeEndian.PutUint16(l.data[at:], uint16(len(l.data)-at))
}

func (l *elementList) attr(typ uint16, data []byte) {
	l.data = binary.NativeEndian.AppendUint16(l.data, uint16(4+len(data)))
	l.data = binary.NativeEndian.AppendUint16(l.data, typ)
	l.data = append(l.data, data...)
	for range align(len(data)) - len(data) {
		l.data = append(l.data, 0)
	}
}

// begin begins an element with its key.
func (l *elementList) begin(s Set, key string) (at int) {
	l.n++
	at = l.open(unix.NFTA_LIST_ELEM)
	if s.Interval {
		if key[len(key)-1:] == IntervalEnd {
			l.attr(unix.NFTA_SET_ELEM_FLAGS, be32(unix.NFT_SET_ELEM_INTERVAL_END))
		}
		key = key[:len(key)-1]
	}
	k := l.open(unix.NFTA_SET_ELEM_KEY)
	l.attr(unix.NFTA_DATA_VALUE, []byte(key))
	l.close(k)
	return at
}

// Keys of interval sets have one more byte. An interval's end comes before the start of
// the next one at the same address, which is the order that the kernel wants.
const IntervalEnd, IntervalStart = "\x00", "\x01"
