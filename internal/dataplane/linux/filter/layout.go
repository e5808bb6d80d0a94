package filter

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"vpnd/internal/dataplane/linux/nft"
)

const tableName = "vpnd"

// Flow marks (ct mark) that are no code's serial.
const (
	flowOff    = 0xffffffff // permitted by an "mfa": "off" grant, opened without a session
	flowPortal = 0xfffffffe // to the portal, from any device
	lastSerial = 0xffffff00 // serials of codes lie below
)

// layout is all that decides which chains, rules and sets there are. While it stays the
// same, only elements change.
type layout struct {
	iface      string
	linkLayer  bool // the interface has link-layer addresses: IPv6 needs neighbour discovery
	mark       uint32
	appPort    uint16
	portalPort uint16
	guard4     bool
	guard6     bool
	gateway    []netip.Addr
	network    []netip.Prefix
	masquerade bool
	services   bool   // something is published
	relayTCP   uint16 // the ports of the relay; 0: there is none
	relayUDP   uint16
	fresh      []time.Duration // freshnesses in use, the longest first
	off        bool            // there are "off" grants
	self       bool            // autogroup:self adds to what some devices reach
	levels     []int           // sizes of port blocks in use, in bits, the smallest first
	labels     bool            // flows can bear labels
	tag        tag             // of them; drawn for each set of tables
}

// equal compares all but the tag.
func (l layout) equal(o layout) bool {
	l.tag = o.tag
	return fmt.Sprintf("%+v", l) == fmt.Sprintf("%+v", o)
}

func (l layout) prefixes(f nft.IP) (out []netip.Prefix) {
	for _, p := range l.network {
		if nft.IPOf(p.Addr()).NFProto == f.NFProto {
			out = append(out, p)
		}
	}
	return out
}

func (l layout) addrs(f nft.IP) (out []netip.Addr) {
	for _, a := range l.gateway {
		if nft.IPOf(a).NFProto == f.NFProto {
			out = append(out, a)
		}
	}
	return out
}

// families are those in which the tunnel has addresses.
func (l layout) families() (out []nft.IP) {
	for _, f := range []nft.IP{nft.IP4, nft.IP6} {
		if len(l.prefixes(f)) > 0 {
			out = append(out, f)
		}
	}
	return out
}

// Names of sets.

func roleSet(f nft.IP) string    { return "role" + f.Suffix }
func zoneSet(f nft.IP) string    { return "zone" + f.Suffix }
func zoneNetSet(f nft.IP) string { return "zone_net" + f.Suffix }
func sourceSet(f nft.IP) string  { return "source_net" + f.Suffix }
func sessionSet(f nft.IP) string { return "session" + f.Suffix }

func selfSet(f nft.IP) string { return "self" + f.Suffix }

// classChain is the chain that a class's ports lead to.
func classChain(class uint32) string { return classPrefix + strconv.Itoa(int(class)) }

const classPrefix = "class_"

func freshName(d time.Duration) string {
	if d == 0 {
		return "off"
	}
	s := d.String() // "12h0m0s", "1m30s"
	s = strings.TrimSuffix(s, "0s")
	if s == "" || strings.HasSuffix(s, ".") {
		return d.String()
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	if last := s[len(s)-1]; last >= '0' && last <= '9' {
		return d.String() // it was "10s", not "…m0s"
	}
	return s
}

func allowSet(d time.Duration) string           { return "allow_" + freshName(d) }
func timedSet(d time.Duration) string           { return "timed_" + freshName(d) }
func startSet(f nft.IP, d time.Duration) string { return "start" + f.Suffix + "_" + freshName(d) }
func liveSet(f nft.IP, d time.Duration) string  { return "live" + f.Suffix + "_" + freshName(d) }

// sets lists the sets of the table in a fixed order.
func (l layout) sets() []nft.Set {
	var out []nft.Set
	handle, mark := nft.Field{Typ: nft.TypeClassID, Len: 4}, nft.Field{Typ: nft.TypeMark, Len: 4}
	for _, f := range l.families() {
		addr := nft.Field{Typ: f.ElementType, Len: f.Len}
		out = append(out,
			nft.Set{Name: roleSet(f), Key: []nft.Field{addr}, Data: nft.TypeClassID},
			nft.Set{Name: sourceSet(f), Key: []nft.Field{addr}, Data: nft.TypeClassID, Interval: true},
			nft.Set{Name: zoneSet(f), Key: []nft.Field{addr}, Data: nft.TypeClassID},
			nft.Set{Name: zoneNetSet(f), Key: []nft.Field{addr}, Data: nft.TypeClassID, Interval: true},
		)
		if l.self {
			out = append(out, nft.Set{Name: selfSet(f), Key: []nft.Field{addr, addr}, Data: nft.TypeClassID})
		}
		out = append(out, l.serviceSets(f)...)
		out = append(out,
			nft.Set{Name: sessionSet(f), Key: []nft.Field{addr}, Timeout: true},
			nft.Set{Name: leavingSet(f), Key: []nft.Field{addr}, Timeout: true})
		for _, d := range l.fresh {
			out = append(out,
				nft.Set{Name: startSet(f, d), Key: []nft.Field{addr}, Data: nft.TypeMark, Timeout: true},
				nft.Set{Name: liveSet(f, d), Key: []nft.Field{addr, mark}, Timeout: true})
			if l.labels {
				out = append(out, nft.Set{Name: quickSet(f, d), Key: []nft.Field{addr, mark, mark}, Timeout: true})
			}
		}
	}
	for _, n := range l.levels {
		key := []nft.Field{handle, {Typ: nft.TypeInetProto, Len: 1}, {Typ: nft.TypeInetService, Len: 2}}
		if n == 16 {
			key = key[:2]
		}
		out = append(out, nft.Set{Name: classSet(n), Key: key, GoTo: classPrefix})
	}
	for _, d := range l.allows() {
		out = append(out, nft.Set{Name: allowSet(d), Key: []nft.Field{handle}, Timeout: true})
		if d != 0 { // what ends by "hours" or "expires"
			out = append(out, nft.Set{Name: timedSet(d), Key: []nft.Field{handle}, Timeout: true})
		}
	}
	return out
}

// allows are the freshnesses of grants, "off" (0) first.
func (l layout) allows() []time.Duration {
	if l.off {
		return append([]time.Duration{0}, l.fresh...)
	}
	return l.fresh
}
