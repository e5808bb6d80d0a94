package linux

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"
)

// ruleProto is written into each of our rules: whose they are (see ip-rule(8), protocol;
// numbers above 4 are free, and those of the routing daemons begin at 186).
const ruleProto = 77

// Priorities: behind the local table (0), so that the gateway's own addresses stay
// reachable, and ahead of everything that other tools insert (VRF 1000, Tailscale
// 5210, wg-quick just before main's 32766): a lookup of theirs must not come first.
const (
	prioOwn     = 70 + iota // the gateway itself may send to the tunnel's network
	prioTo                  // marked packets may be forwarded to it
	prioNotTo               // others may not
	prioFrom                // marked packets may be forwarded from the tunnel
	prioNotFrom             // others may not
	prioGuard               // what the host did not forward, it still does not
)

// rule is a routing rule as we write them. It is comparable.
type rule struct {
	family int // AF_INET or AF_INET6
	prio   int
	not    bool         // the match is inverted
	iif    string       // "" matches all
	to     netip.Prefix // the zero Prefix matches all
	marked bool         // only packets that carry Mark
	action uint8        // RTN_UNICAST looks up main; RTN_PROHIBIT, RTN_BLACKHOLE
	other  string       // what we never write: makes a rule of somebody's differ
}

func (r rule) String() string {
	s := fmt.Sprintf("routing rule %d", r.prio)
	if r.family == unix.AF_INET6 {
		s = fmt.Sprintf("routing rule %d (IPv6)", r.prio)
	}
	if r.not {
		s += " not"
	}
	if r.iif != "" {
		s += " iif " + r.iif
	}
	if r.to.IsValid() {
		s += " to " + r.to.String()
	}
	if r.marked {
		s += fmt.Sprintf(" fwmark %#x/%#x", Mark, Mark)
	}
	switch r.action {
	case unix.RTN_UNICAST:
		s += " lookup main"
	case unix.RTN_PROHIBIT:
		s += " prohibit"
	case unix.RTN_BLACKHOLE:
		s += " blackhole"
	}
	return s + r.other
}

// guards are the interfaces whose forwarding was switched on for the tunnel alone: the
// host drops what comes in by them for anybody else, as it did before. Routing guards
// them rather than the filter, so that a flushed table does not open the host either.
type guards struct {
	v4, v6 []string // sorted
	all6   bool     // IPv6 forwarding is on for the whole host, and was off
}

func (g guards) equal(o guards) bool {
	return slices.Equal(g.v4, o.v4) && slices.Equal(g.v6, o.v6) && g.all6 == o.all6
}

// wantRules are the rules for a tunnel, sorted as they are consulted.
func wantRules(iface string, network []netip.Prefix, g guards) []rule {
	var out []rule
	for _, n := range network {
		n = n.Masked()
		f := family(n.Addr())
		out = append(out,
			rule{family: f, prio: prioOwn, iif: "lo", to: n, action: unix.RTN_UNICAST},
			rule{family: f, prio: prioTo, to: n, marked: true, action: unix.RTN_UNICAST},
			rule{family: f, prio: prioNotTo, to: n, action: unix.RTN_PROHIBIT})
	}
	for _, f := range []int{unix.AF_INET, unix.AF_INET6} {
		out = append(out,
			rule{family: f, prio: prioFrom, iif: iface, marked: true, action: unix.RTN_UNICAST},
			rule{family: f, prio: prioNotFrom, iif: iface, action: unix.RTN_PROHIBIT})
	}
	for _, i := range g.v4 {
		out = append(out, rule{family: unix.AF_INET, prio: prioGuard, iif: i, action: unix.RTN_BLACKHOLE})
	}
	for _, i := range g.v6 {
		out = append(out, rule{family: unix.AF_INET6, prio: prioGuard, iif: i, action: unix.RTN_BLACKHOLE})
	}
	if g.all6 {
		// Packets of the host's own carry iif lo: all others are forwarded ones.
		out = append(out, rule{family: unix.AF_INET6, prio: prioGuard, not: true, iif: "lo", action: unix.RTN_BLACKHOLE})
	}
	slices.SortFunc(out, compareRules)
	return out
}

func compareRules(a, b rule) int {
	return cmp.Or(cmp.Compare(a.family, b.family), cmp.Compare(a.prio, b.prio),
		cmp.Compare(a.iif, b.iif), a.to.Compare(b.to))
}

// diffRules says which rules to add and which to delete. A rule that is there twice is
// deleted once.
func diffRules(have, want []rule) (add, del []rule) {
	left := map[rule]bool{}
	for _, r := range want {
		left[r] = true
	}
	for _, r := range have {
		if left[r] {
			delete(left, r)
		} else {
			del = append(del, r)
		}
	}
	for _, r := range want {
		if left[r] {
			add = append(add, r)
		}
	}
	return add, del
}

func family(a netip.Addr) int {
	if a.Is4() {
		return unix.AF_INET
	}
	return unix.AF_INET6
}
