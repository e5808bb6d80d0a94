// Package review tells people what a policy means: why a flow may pass or not, what one
// policy changes against another, and whether the tests that the policy brings along hold.
// Nothing is decided here: it reads what package rules has compiled.
package review

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"vpnd/acl/internal/bitset"
	"vpnd/acl/language"
	"vpnd/acl/rules"
)

// Explanation says why a packet may pass or not.
type Explanation struct {
	rules.Verdict
	Source      string // the device, the host, or the address
	Destination string
	// Covering are the grants that cover the packet, the one that decides first.
	Covering []Step
	// Others are the grants between these ends that do not cover it: other ports.
	Others []Step
}

// Step is a grant's part in an explanation.
type Step struct {
	Grant   rules.GrantInfo
	From    string // how it comes to the source: "group:ops", "group:all through group:ops"
	To      string // how it comes to the destination
	Ports   string // what it grants there: "tcp:443, udp:53"
	Verdict rules.Verdict
}

// Explain says why p may pass at now or not. It is Verdict with its reasons.
func Explain(r *rules.Ruleset, p rules.Packet, now time.Time) Explanation {
	p.Src, p.Dst = p.Src.Unmap(), p.Dst.Unmap()
	role, zone := r.Ends(p.Src, p.Dst)
	x := explainer{r, r.AddressBook()}
	e := Explanation{Verdict: r.Verdict(p, now), Source: x.nameOf(p.Src), Destination: x.nameOf(p.Dst)}
	for _, n := range bitset.Common(nil, r.RulesFrom(role), r.RulesTo(zone)) {
		rule := &r.Rules()[n]
		s := Step{Ports: language.SpansText(rule.Spans), Verdict: r.Holds(n, p, now)}
		s.Grant, _ = r.Grant(rule.Grant)
		s.From = x.through(rule.Src, p.Src, netip.Addr{})
		s.To = x.through(rule.Dst, p.Dst, p.Src)
		if slices.ContainsFunc(rule.Spans, func(x language.Span) bool {
			return x.Proto == p.Proto && x.First <= p.DstPort && p.DstPort <= x.Last
		}) {
			e.Covering = append(e.Covering, s)
		} else {
			s.Verdict = rules.Verdict{Reason: rules.NoGrant, Grant: -1}
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
	*rules.Ruleset
	book *rules.AddressBook
}

// nameOf names an address: its device, the host that is just it, or itself.
func (x explainer) nameOf(a netip.Addr) string {
	if d := x.Enrolled(a); d != nil {
		return d.Subject.Device
	}
	if slices.ContainsFunc(x.Options().Gateway, func(g netip.Addr) bool { return g.Unmap() == a }) {
		return language.AppHost
	}
	for name, addrs := range x.Options().Services {
		if x.Policy().Resource(name) != nil && slices.ContainsFunc(addrs, func(s netip.Addr) bool { return s.Unmap() == a }) {
			return name
		}
	}
	for _, name := range x.Policy().Hosts() {
		if p, ok := x.Policy().HostPrefix(name); ok && p.IsSingleIP() && p.Addr() == a {
			return name
		}
	}
	return a.String()
}

// through says which of a grant's selectors an address is selected by. For a destination,
// from is the source.
func (x explainer) through(list []language.Selector, a, from netip.Addr) string {
	d := x.Enrolled(a)
	var ways []string
	for _, t := range list {
		switch {
		case x.book.Has(t):
			for _, p := range x.book.Of(t) {
				if p.Contains(a) {
					way := t.String()
					if t.Kind != language.SelectPrefix {
						way = fmt.Sprintf("%s (%s)", way, language.PrefixText(p))
					}
					ways = append(ways, way)
					break
				}
			}
		case t.Kind == language.SelectAny && (d != nil || from.IsValid()):
			ways = append(ways, "*")
		case t.Kind == language.SelectSelf:
			if s := x.Enrolled(from); s != nil && d != nil && s.User != "" && s.User == d.User && a != from {
				ways = append(ways, "autogroup:self")
			}
		case d == nil:
		case t.Kind == language.SelectTagged && d.User == "", t.Kind == language.SelectMembers && d.User != "":
			ways = append(ways, t.String())
		case t.Kind == language.SelectTag && slices.Contains(d.Subject.Tags, t.Name):
			ways = append(ways, t.Name)
		case t.Kind == language.SelectUser && d.User != "" && t.Name == d.User:
			ways = append(ways, t.Name)
		case t.Kind == language.SelectGroup && d.User != "" && x.Policy().IsIn(t.Name, d.User):
			ways = append(ways, x.Policy().Chain(t.Name, d.User))
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
