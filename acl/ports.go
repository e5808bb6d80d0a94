package acl

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// Protocol numbers of IANA's registry.
const (
	protoICMP   = 1
	protoTCP    = 6
	protoUDP    = 17
	protoICMPv6 = 58
	protoSCTP   = 132
)

// protocols are the names that a policy may use for protocols. "icmp" is both ICMP and
// ICMPv6; the numbers 1 and 58 tell them apart.
var protocols = map[string][]uint8{
	"icmp": {protoICMP, protoICMPv6}, "tcp": {protoTCP}, "udp": {protoUDP}, "sctp": {protoSCTP},
	"igmp": {2}, "ipv4": {4}, "ip-in-ip": {4}, "egp": {8}, "igp": {9}, "gre": {47}, "esp": {50}, "ah": {51},
}

// anyProtocol is what an omitted protocol means.
var anyProtocol = []uint8{protoICMP, protoTCP, protoUDP, protoICMPv6}

// hasPorts tells whether a policy may name ports of a protocol.
func hasPorts(proto uint8) bool {
	return proto == protoTCP || proto == protoUDP || proto == protoSCTP
}

// span is a range of ports of one protocol. A protocol without ports has one span,
// 0-65535.
type span struct {
	proto       uint8
	first, last uint16
}

// spansText writes sorted spans; ICMP of both families is one.
func spansText(list []span) string {
	both := slices.Contains(list, span{protoICMP, 0, 65535}) && slices.Contains(list, span{protoICMPv6, 0, 65535})
	var out []string
	for _, s := range list {
		switch {
		case both && s.proto == protoICMP:
			out = append(out, "icmp")
		case both && s.proto == protoICMPv6:
		default:
			out = append(out, spanText(s.proto, s.first, s.last))
		}
	}
	return strings.Join(out, ", ")
}

// spanText writes a span as a policy would.
func spanText(proto uint8, first, last uint16) string {
	name := strconv.Itoa(int(proto))
	switch proto {
	case protoTCP:
		name = "tcp"
	case protoUDP:
		name = "udp"
	case protoSCTP:
		name = "sctp"
	}
	switch {
	case first == 0 && last == 65535:
		return name + ":*"
	case first == last:
		return fmt.Sprintf("%s:%d", name, first)
	default:
		return fmt.Sprintf("%s:%d-%d", name, first, last)
	}
}

// parseProto reads a protocol's name or number.
func parseProto(s string) ([]uint8, error) {
	if p, ok := protocols[strings.ToLower(s)]; ok {
		return p, nil
	}
	if n, err := strconv.ParseUint(s, 10, 8); err == nil && strconv.Itoa(int(n)) == s {
		if n == 0 || n == 255 {
			return nil, fmt.Errorf("protocol %d is reserved: write a protocol's name or a number from 1 to 254", n)
		}
		return []uint8{uint8(n)}, nil
	}
	names := slices.Sorted(maps.Keys(protocols))
	return nil, fmt.Errorf("%q is not a protocol: write one of %s, or a number from 1 to 254%s",
		short(s), strings.Join(names, ", "), orMean(s, names))
}

// parsePorts reads "443", "80-90", "22,80-90" or "*"; nil, nil means every port.
func parsePorts(s string) ([]window, error) {
	if s == "*" {
		return nil, nil
	}
	var list []window
	for part := range strings.SplitSeq(s, ",") {
		a, b, isRange := strings.Cut(part, "-")
		if !isRange {
			b = a
		}
		from, ok1 := parsePort(a)
		to, ok2 := parsePort(b)
		switch {
		case !ok1 || !ok2:
			if part == "0" || from == 0 && ok1 {
				return nil, fmt.Errorf("port 0 does not exist: ports go from 1 to 65535, \"*\" means all")
			}
			return nil, fmt.Errorf("%q is not a port: write a number from 1 to 65535, a range like 8000-8099, or \"*\"; names of ports are not supported", short(part))
		case from == 0 || to == 0:
			return nil, fmt.Errorf("port 0 does not exist: ports go from 1 to 65535, \"*\" means all")
		case from > to:
			return nil, fmt.Errorf("the range %s runs backwards: write %d-%d", part, to, from)
		}
		list = append(list, window{from, to + 1})
	}
	return list, nil
}

func parsePort(s string) (int, bool) {
	n, err := strconv.ParseUint(s, 10, 16)
	return int(n), err == nil && strconv.Itoa(int(n)) == s
}

// parseIP reads an element of a grant's "ip": "*", "443", "80-90", "tcp:443", "udp:*",
// "icmp", "47:*".
func parseIP(s string) ([]span, error) {
	proto, ports, both := strings.Cut(s, ":")
	if !both {
		if _, err := parsePorts(s); err == nil {
			return spans(anyProtocol, s)
		}
		if p, ok := protocols[strings.ToLower(s)]; ok {
			return spans(p, "*")
		}
		if s != "" && (s[0] < '0' || s[0] > '9') {
			_, err := parseProto(s)
			return nil, err
		}
		_, err := parsePorts(s)
		return nil, err
	}
	if proto == "*" {
		return spans(anyProtocol, ports)
	}
	p, err := parseProto(proto)
	if err != nil {
		return nil, err
	}
	if ports != "*" && !hasPorts(p[0]) {
		return nil, fmt.Errorf("%s has no ports: write \"%s:*\"", proto, proto)
	}
	return spans(p, ports)
}

// spans is the product of protocols and ports. A protocol without ports comes in as a
// whole: whoever may reach any port of a host may ping it.
func spans(protos []uint8, ports string) ([]span, error) {
	windows, err := parsePorts(ports)
	if err != nil {
		return nil, err
	}
	var list []span
	for _, p := range protos {
		if windows == nil || !hasPorts(p) {
			list = append(list, span{p, 0, 65535})
			continue
		}
		for _, w := range windows {
			list = append(list, span{p, uint16(w.start), uint16(w.end - 1)})
		}
	}
	return list, nil
}

// mergeSpans sorts spans and makes them disjoint.
func mergeSpans(list []span) []span {
	list = slices.Clone(list)
	slices.SortFunc(list, func(a, b span) int {
		return cmp.Or(cmp.Compare(a.proto, b.proto), cmp.Compare(a.first, b.first), cmp.Compare(a.last, b.last))
	})
	merged := list[:0]
	for _, s := range list {
		if n := len(merged); n > 0 && merged[n-1].proto == s.proto && int(s.first) <= int(merged[n-1].last)+1 {
			merged[n-1].last = max(merged[n-1].last, s.last)
		} else {
			merged = append(merged, s)
		}
	}
	return merged
}
