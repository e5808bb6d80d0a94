package acl

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// Explanation says why a packet may pass or not.
type Explanation struct {
	Verdict
	Source      string // the device, the host, or the address
	Destination string
	// Covering are the grants that cover the packet, the one that decides first.
	Covering []Step
	// Others are the grants between these ends that do not cover it: other ports.
	Others []Step
}

// Step is a grant's part in an explanation.
type Step struct {
	Grant   GrantInfo
	From    string // how it comes to the source: "group:ops", "group:all through group:ops"
	To      string // how it comes to the destination
	Ports   string // what it grants there: "tcp:443, udp:53"
	Verdict Verdict
}

// Explain says why p may pass at now or not. It is Verdict with its reasons.
func Explain(r *Ruleset, p Packet, now time.Time) Explanation {
	p.Src, p.Dst = p.Src.Unmap(), p.Dst.Unmap()
	role, zone := r.Ends(p.Src, p.Dst)
	x := explainer{r, r.AddressBook()}
	e := Explanation{Verdict: r.Verdict(p, now), Source: x.nameOf(p.Src), Destination: x.nameOf(p.Dst)}
	for _, n := range common(nil, r.RulesFrom(role), r.RulesTo(zone)) {
		rule := &r.Rules()[n]
		s := Step{Ports: spansText(rule.spans), Verdict: r.Holds(n, p, now)}
		s.Grant, _ = r.Grant(rule.grant)
		s.From = x.through(rule.src, p.Src, netip.Addr{})
		s.To = x.through(rule.dst, p.Dst, p.Src)
		if slices.ContainsFunc(rule.spans, func(x span) bool {
			return x.proto == p.Proto && x.first <= p.DstPort && p.DstPort <= x.last
		}) {
			e.Covering = append(e.Covering, s)
		} else {
			s.Verdict = Verdict{Reason: NoGrant, Grant: -1}
			e.Others = append(e.Others, s)
		}
	}
	slices.SortStableFunc(e.Covering, func(a, b Step) int {
		switch {
		case a.Verdict.Better(b.Verdict):
			return -1
		case b.Verdict.Better(a.Verdict):
			return 1
		default:
			return 0
		}
	})
	slices.SortStableFunc(e.Others, func(a, b Step) int { return a.Grant.Line - b.Grant.Line })
	return e
}

// explainer finds the names of addresses.
type explainer struct {
	*Ruleset
	book *places
}

// nameOf names an address: its device, the host that is just it, or itself.
func (x explainer) nameOf(a netip.Addr) string {
	if d := x.Enrolled(a); d != nil {
		return d.subject.Device
	}
	if slices.ContainsFunc(x.Options().Gateway, func(g netip.Addr) bool { return g.Unmap() == a }) {
		return appHost
	}
	for _, name := range x.Policy().Hosts() {
		if p, ok := x.Policy().HostPrefix(name); ok && p.IsSingleIP() && p.Addr() == a {
			return name
		}
	}
	return a.String()
}

// through says which of a grant's targets an address is selected by. For a destination,
// from is the source.
func (x explainer) through(targets []target, a, from netip.Addr) string {
	d := x.Enrolled(a)
	var ways []string
	for _, t := range targets {
		switch {
		case x.book.has(t):
			for _, p := range x.book.of(t) {
				if p.Contains(a) {
					way := t.String()
					if t.kind != prefixTarget {
						way = fmt.Sprintf("%s (%s)", way, prefixText(p))
					}
					ways = append(ways, way)
					break
				}
			}
		case t.kind == anyTarget && (d != nil || from.IsValid()):
			ways = append(ways, "*")
		case t.kind == selfTarget:
			if s := x.Enrolled(from); s != nil && d != nil && s.user != "" && s.user == d.user && a != from {
				ways = append(ways, "autogroup:self")
			}
		case d == nil:
		case t.kind == taggedTarget && d.user == "", t.kind == memberTarget && d.user != "":
			ways = append(ways, t.String())
		case t.kind == tagTarget && slices.Contains(d.subject.Tags, t.name):
			ways = append(ways, t.name)
		case t.kind == userTarget && d.user != "" && t.name == d.user:
			ways = append(ways, t.name)
		case t.kind == groupTarget && d.user != "" && x.Policy().isIn(t.name, d.user):
			ways = append(ways, x.Policy().chain(t.name, d.user))
		}
	}
	return strings.Join(ways, ", ")
}

// String is the explanation as a few lines of text.
func (e Explanation) String() string {
	var b strings.Builder
	answer := "denied: " + e.Reason.String()
	if e.Allow {
		answer = "allowed"
		if !e.Until.IsZero() {
			answer += " until " + e.Until.Format(time.RFC3339)
		}
	}
	fmt.Fprintf(&b, "%s -> %s: %s\n", e.Source, e.Destination, answer)
	for _, s := range e.Covering {
		state := s.Verdict.Reason.String()
		if !s.Verdict.Until.IsZero() {
			if s.Verdict.Allow {
				state += " until "
			} else {
				state += ", again from "
			}
			state += s.Verdict.Until.Format(time.RFC3339)
		}
		fmt.Fprintf(&b, "  line %d (%s): from %s to %s, %s: %s\n", s.Grant.Line, s.Grant.Text, s.From, s.To, s.Ports, state)
	}
	for _, s := range e.Others {
		fmt.Fprintf(&b, "  line %d (%s): from %s to %s, but only %s\n", s.Grant.Line, s.Grant.Text, s.From, s.To, s.Ports)
	}
	return b.String()
}
