package language

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
	ProtoICMP   = 1
	ProtoTCP    = 6
	ProtoUDP    = 17
	ProtoICMPv6 = 58
	protoSCTP   = 132
)

// Protocols are the names that a policy may use for protocols. "icmp" is both ICMP and
// ICMPv6; the numbers 1 and 58 tell them apart.
var Protocols = map[string][]uint8{
	"icmp": {ProtoICMP, ProtoICMPv6}, "tcp": {ProtoTCP}, "udp": {ProtoUDP}, "sctp": {protoSCTP},
	"igmp": {2}, "ipv4": {4}, "ip-in-ip": {4}, "egp": {8}, "igp": {9}, "gre": {47}, "esp": {50}, "ah": {51},
}

// anyProtocol is what an omitted protocol means.
var anyProtocol = []uint8{ProtoICMP, ProtoTCP, ProtoUDP, ProtoICMPv6}

// HasPorts tells whether a policy may name ports of a protocol.
func HasPorts(proto uint8) bool {
	return proto == ProtoTCP || proto == ProtoUDP || proto == protoSCTP
}

// Span is a range of ports of one protocol. A protocol without ports has one span,
// 0-65535.
type Span struct {
	Proto       uint8
	First, Last uint16
}

// SpansText writes sorted spans; ICMP of both families is one.
func SpansText(list []Span) string {
	both := slices.Contains(list, Span{ProtoICMP, 0, 65535}) && slices.Contains(list, Span{ProtoICMPv6, 0, 65535})
	var out []string
	for _, s := range list {
		switch {
		case both && s.Proto == ProtoICMP:
			out = append(out, "icmp")
		case both && s.Proto == ProtoICMPv6:
		default:
			out = append(out, SpanText(s.Proto, s.First, s.Last))
		}
	}
	return strings.Join(out, ", ")
}

// SpanText writes a span as a policy would.
func SpanText(proto uint8, first, last uint16) string {
	name := strconv.Itoa(int(proto))
	switch proto {
	case ProtoTCP:
		name = "tcp"
	case ProtoUDP:
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

// ParseProto reads a protocol's name or number.
func ParseProto(s string) ([]uint8, error) {
	if p, ok := Protocols[strings.ToLower(s)]; ok {
		return p, nil
	}
	if n, err := strconv.ParseUint(s, 10, 8); err == nil && strconv.Itoa(int(n)) == s {
		if n == 0 || n == 255 {
			return nil, faultf(CodeBadProtocol, "protocol %d is reserved: write a protocol's name or a number from 1 to 254", n)
		}
		return []uint8{uint8(n)}, nil
	}
	names := slices.Sorted(maps.Keys(Protocols))
	return nil, faultf(CodeBadProtocol, "%q is not a protocol: write one of %s, or a number from 1 to 254%s",
		Short(s), strings.Join(names, ", "), orMean(s, names))
}

// ParsePorts reads "443", "80-90", "22,80-90" or "*"; nil, nil means every port.
func ParsePorts(s string) ([]window, error) {
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
				return nil, faultf(CodeBadPort, "port 0 does not exist: ports go from 1 to 65535, \"*\" means all")
			}
			return nil, faultf(CodeBadPort, "%q is not a port: write a number from 1 to 65535, a range like 8000-8099, or \"*\"; names of ports are not supported", Short(part))
		case from == 0 || to == 0:
			return nil, faultf(CodeBadPort, "port 0 does not exist: ports go from 1 to 65535, \"*\" means all")
		case from > to:
			return nil, faultf(CodeBadPort, "the range %s runs backwards: write %d-%d", part, to, from)
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
func parseIP(s string) ([]Span, error) {
	proto, ports, both := strings.Cut(s, ":")
	if !both {
		if _, err := ParsePorts(s); err == nil {
			return spans(anyProtocol, s)
		}
		if p, ok := Protocols[strings.ToLower(s)]; ok {
			return spans(p, "*")
		}
		if s != "" && (s[0] < '0' || s[0] > '9') {
			_, err := ParseProto(s)
			return nil, err
		}
		_, err := ParsePorts(s)
		return nil, err
	}
	if proto == "*" {
		return spans(anyProtocol, ports)
	}
	p, err := ParseProto(proto)
	if err != nil {
		return nil, err
	}
	if ports != "*" && !HasPorts(p[0]) {
		return nil, faultf(CodeNoPorts, "%s has no ports: write \"%s:*\"", proto, proto)
	}
	return spans(p, ports)
}

// spans is the product of protocols and ports. A protocol without ports comes in as a
// whole: whoever may reach any port of a host may ping it.
func spans(protos []uint8, ports string) ([]Span, error) {
	windows, err := ParsePorts(ports)
	if err != nil {
		return nil, err
	}
	var list []Span
	for _, p := range protos {
		if windows == nil || !HasPorts(p) {
			list = append(list, Span{p, 0, 65535})
			continue
		}
		for _, w := range windows {
			list = append(list, Span{p, uint16(w.Start), uint16(w.End - 1)})
		}
	}
	return list, nil
}

// mergeSpans sorts spans and makes them disjoint.
func mergeSpans(list []Span) []Span {
	if list == nil {
		return nil
	}
	list = slices.Clone(list)
	slices.SortFunc(list, func(a, b Span) int {
		return cmp.Or(cmp.Compare(a.Proto, b.Proto), cmp.Compare(a.First, b.First), cmp.Compare(a.Last, b.Last))
	})
	merged := list[:0]
	for _, s := range list {
		if n := len(merged); n > 0 && merged[n-1].Proto == s.Proto && int(s.First) <= int(merged[n-1].Last)+1 {
			merged[n-1].Last = max(merged[n-1].Last, s.Last)
		} else {
			merged = append(merged, s)
		}
	}
	return merged
}
