package filter

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"
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

func (l layout) prefixes(f ip) (out []netip.Prefix) {
	for _, p := range l.network {
		if ipOf(p.Addr()).nfproto == f.nfproto {
			out = append(out, p)
		}
	}
	return out
}

func (l layout) addrs(f ip) (out []netip.Addr) {
	for _, a := range l.gateway {
		if ipOf(a).nfproto == f.nfproto {
			out = append(out, a)
		}
	}
	return out
}

// families are those in which the tunnel has addresses.
func (l layout) families() (out []ip) {
	for _, f := range []ip{ip4, ip6} {
		if len(l.prefixes(f)) > 0 {
			out = append(out, f)
		}
	}
	return out
}

// Names of sets.

func roleSet(f ip) string    { return "role" + f.suffix }
func zoneSet(f ip) string    { return "zone" + f.suffix }
func zoneNetSet(f ip) string { return "zone_net" + f.suffix }
func sourceSet(f ip) string  { return "source_net" + f.suffix }
func sessionSet(f ip) string { return "session" + f.suffix }

func selfSet(f ip) string { return "self" + f.suffix }

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

func allowSet(d time.Duration) string       { return "allow_" + freshName(d) }
func timedSet(d time.Duration) string       { return "timed_" + freshName(d) }
func startSet(f ip, d time.Duration) string { return "start" + f.suffix + "_" + freshName(d) }
func liveSet(f ip, d time.Duration) string  { return "live" + f.suffix + "_" + freshName(d) }

// sets lists the sets of the table in a fixed order.
func (l layout) sets() []set {
	var out []set
	handle, mark := field{typ: typeClassID, len: 4}, field{typ: typeMark, len: 4}
	for _, f := range l.families() {
		addr := field{typ: f.elementType, len: f.len}
		out = append(out,
			set{name: roleSet(f), key: []field{addr}, data: typeClassID},
			set{name: sourceSet(f), key: []field{addr}, data: typeClassID, interval: true},
			set{name: zoneSet(f), key: []field{addr}, data: typeClassID},
			set{name: zoneNetSet(f), key: []field{addr}, data: typeClassID, interval: true},
		)
		if l.self {
			out = append(out, set{name: selfSet(f), key: []field{addr, addr}, data: typeClassID})
		}
		out = append(out, set{name: sessionSet(f), key: []field{addr}, timeout: true})
		for _, d := range l.fresh {
			out = append(out,
				set{name: startSet(f, d), key: []field{addr}, data: typeMark, timeout: true},
				set{name: liveSet(f, d), key: []field{addr, mark}, timeout: true})
			if l.labels {
				out = append(out, set{name: quickSet(f, d), key: []field{addr, mark, mark}, timeout: true})
			}
		}
	}
	for _, n := range l.levels {
		key := []field{handle, {typ: typeInetProto, len: 1}, {typ: typeInetService, len: 2}}
		if n == 16 {
			key = key[:2]
		}
		out = append(out, set{name: classSet(n), key: key, goTo: classPrefix})
	}
	for _, d := range l.allows() {
		out = append(out, set{name: allowSet(d), key: []field{handle}, timeout: true})
		if d != 0 { // what ends by "hours" or "expires"
			out = append(out, set{name: timedSet(d), key: []field{handle}, timeout: true})
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
