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
func (r *Ruleset) Explain(p Packet, now time.Time) Explanation {
	c := r.c
	p.Src, p.Dst = p.Src.Unmap(), p.Dst.Unmap()
	role, zone, at := c.ends(p.Src, p.Dst)
	at.now, at.src, at.dst = now, p.SrcSession, p.DstSession
	e := Explanation{Verdict: r.Verdict(p, now), Source: c.nameOf(p.Src), Destination: c.nameOf(p.Dst)}
	places := newPlaces(c.policy, c.options, &faults{src: c.policy.src})
	for _, n := range common(nil, c.roles[role], c.zones[zone].set) {
		rule := &c.rules[n]
		s := Step{Grant: c.grants[rule.grant], Ports: spansText(rule.spans), Verdict: c.conds[rule.cond].hold(&at, c.options.Session)}
		s.Verdict.Grant = rule.grant
		s.From = c.through(places, rule.src, p.Src, netip.Addr{})
		s.To = c.through(places, rule.dst, p.Dst, p.Src)
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
		case better(a.Verdict, b.Verdict):
			return -1
		case better(b.Verdict, a.Verdict):
			return 1
		default:
			return 0
		}
	})
	slices.SortStableFunc(e.Others, func(a, b Step) int { return a.Grant.Line - b.Grant.Line })
	return e
}

// nameOf names an address: its device, the host that is just it, or itself.
func (c *compiled) nameOf(a netip.Addr) string {
	if d, ok := c.devices.Lookup(a); ok {
		return d.subject.Device
	}
	if slices.ContainsFunc(c.options.Gateway, func(g netip.Addr) bool { return g.Unmap() == a }) {
		return appHost
	}
	for _, name := range c.policy.Hosts() {
		if h, ok := c.policy.hosts[name]; ok && h.prefix.IsSingleIP() && h.prefix.Addr() == a {
			return name
		}
	}
	return a.String()
}

// through says which of a grant's targets an address is selected by. For a destination,
// from is the source.
func (c *compiled) through(places *places, targets []target, a, from netip.Addr) string {
	d, isDevice := c.devices.Lookup(a)
	var ways []string
	for _, t := range targets {
		switch {
		case places.has(t):
			for _, p := range places.of(t) {
				if p.Contains(a) {
					way := t.String()
					if t.kind != prefixTarget {
						way = fmt.Sprintf("%s (%s)", way, prefixText(p))
					}
					ways = append(ways, way)
					break
				}
			}
		case t.kind == anyTarget && (isDevice || from.IsValid()):
			ways = append(ways, "*")
		case t.kind == selfTarget:
			if s, ok := c.devices.Lookup(from); ok && isDevice && s.user != "" && s.user == d.user && a != from {
				ways = append(ways, "autogroup:self")
			}
		case !isDevice:
		case t.kind == taggedTarget && d.user == "", t.kind == memberTarget && d.user != "":
			ways = append(ways, t.String())
		case t.kind == tagTarget && slices.Contains(d.subject.Tags, t.name):
			ways = append(ways, t.name)
		case t.kind == userTarget && d.user != "" && t.name == d.user:
			ways = append(ways, t.name)
		case t.kind == groupTarget && d.user != "" && c.policy.isIn(t.name, d.user):
			ways = append(ways, c.policy.chain(t.name, d.user))
		}
	}
	return strings.Join(ways, ", ")
}

// chain says how a group comes to have a user: "group:all through group:ops".
func (p *Policy) chain(name, user string) string {
	g := p.groups[name]
	if slices.ContainsFunc(g.users, func(m member) bool { return m.name == user }) {
		return name
	}
	for _, m := range g.groups {
		if _, in := slices.BinarySearch(p.groups[m.name].flat, user); in {
			return name + " through " + p.chain(m.name, user)
		}
	}
	return name
}

// String is the reason as a sentence for the person at the source.
func (r Reason) String() string {
	switch r {
	case Allowed:
		return "allowed"
	case NoGrant:
		return "no grant of the policy covers this"
	case NoSession:
		return "a code is needed first: sign in"
	case StaleCode:
		return "a fresher code is needed: sign in again"
	case OutsideTime:
		return "granted at another time only"
	case PeerOffline:
		return "the device at the other end is not signed in"
	default:
		return fmt.Sprintf("reason %d", uint8(r))
	}
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
