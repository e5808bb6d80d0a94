package review

import (
	"slices"

	"vpnd/acl/language"
)

// Change is what Differences of the same ends and the same conditions say together.
type Change struct {
	Difference          // its Proto, First and Last are those of the first
	Spans      []string // all its ports as a policy writes them: "tcp:443", "icmp", "*"
}

// Effect is "gains", "loses", or "changes" where only the conditions are others.
func (c Change) Effect() string {
	switch {
	case c.Gain():
		return "gains"
	case c.Loss():
		return "loses"
	default:
		return "changes"
	}
}

// Changes puts the Differences of a Diff together for people: one entry for the ports of
// the same ends, in the order of the Diff.
func Changes(list []Difference) []Change {
	type ends struct{ src, dst, before, after string }
	index := map[ends]int{}
	var out []Change
	var spans [][]language.Span
	for _, d := range list {
		key := ends{placeNames(d.Sources), placeNames(d.Destinations), d.Before, d.After}
		i, ok := index[key]
		if !ok {
			i = len(out)
			index[key] = i
			out = append(out, Change{Difference: d})
			spans = append(spans, nil)
		}
		spans[i] = append(spans[i], language.Span{Proto: d.Proto, First: d.First, Last: d.Last})
	}
	for i := range out {
		out[i].Spans = changedPorts(spans[i])
	}
	return out
}

// changedPorts writes spans as short as people do. An address has one family, and with it
// one of the two ICMPs: that it is ICMP is all there is to say.
func changedPorts(list []language.Span) []string {
	var out []string
	whole := map[string]bool{}
	for _, s := range list {
		text := language.SpanText(s.Proto, s.First, s.Last)
		if s.Proto == language.ProtoICMP || s.Proto == language.ProtoICMPv6 {
			text = "icmp"
		}
		if !slices.Contains(out, text) {
			out = append(out, text)
		}
		whole[text] = true
	}
	if whole["icmp"] && whole["tcp:*"] && whole["udp:*"] {
		out = slices.DeleteFunc(out, func(s string) bool { return s == "icmp" || s == "tcp:*" || s == "udp:*" })
		out = slices.Insert(out, 0, "*")
	}
	return out
}
