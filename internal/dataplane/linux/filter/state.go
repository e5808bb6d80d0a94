package filter

import (
	"maps"
	"net/netip"
	"slices"
	"time"

	"vpnd/acl/rules"
	"vpnd/internal/dataplane"
)

// state is the desired state, by addresses, and what of the policy the table is made of.
// It is what the table holds, as far as we know: a change that failed is not in it.
type state struct {
	gateway  dataplane.Gateway
	policy   *rules.Ruleset
	part     policyPart
	judged   time.Time // for when part was made
	devices  map[netip.Addr]place
	sessions map[netip.Addr]session
	leaving  map[netip.Addr]time.Time // addresses of removed devices, and until when
	services []dataplane.Service
	led      contents // where they lead to
}

func newState(s dataplane.State, l leader, now time.Time) *state {
	n := &state{
		services: s.Services, led: l.leads(s.Services),
		gateway: s.Gateway, policy: s.Rules, part: compile(s.Rules, now), judged: now,
		devices:  make(map[netip.Addr]place, 2*len(s.Devices)),
		sessions: make(map[netip.Addr]session, 2*len(s.Sessions)),
		leaving:  make(map[netip.Addr]time.Time),
	}
	for _, d := range s.Devices {
		for _, a := range d.Addrs {
			n.devices[a] = placeOf(n.policy, a)
		}
	}
	for _, x := range s.Sessions {
		for _, a := range x.Addrs {
			n.sessions[a] = session{until: x.Until, codes: x.Codes}
		}
	}
	return n
}

// patch is what a change makes of a state.
type patch struct {
	policy   *rules.Ruleset
	part     *policyPart // made anew for judged; nil: as before
	judged   time.Time
	more     *policyPart // what part grows by; nil: nothing
	devices  map[netip.Addr]*place
	sessions map[netip.Addr]*session  // nil in either map: there is none at the address
	leaving  map[netip.Addr]time.Time // zero: it is not, any more
	services []dataplane.Service      // nil: as before
	led      contents                 // of services
}

// apply changes s.
func (s *state) apply(p patch) {
	s.policy = p.policy
	if p.services != nil {
		s.services, s.led = p.services, p.led
	}
	if p.part != nil {
		s.part, s.judged = *p.part, p.judged
	}
	if p.more != nil {
		s.part.add(*p.more)
	}
	for a, x := range p.devices {
		if x == nil {
			delete(s.devices, a)
		} else {
			s.devices[a] = *x
		}
	}
	for a, x := range p.sessions {
		if x == nil {
			delete(s.sessions, a)
		} else {
			s.sessions[a] = *x
		}
	}
	for a, until := range p.leaving {
		if until.IsZero() {
			delete(s.leaving, a)
		} else {
			s.leaving[a] = until
		}
	}
}

// with is s as p makes it; s itself stays what it is.
func (s *state) with(p patch) *state {
	n := *s
	n.devices, n.sessions, n.leaving = maps.Clone(s.devices), maps.Clone(s.sessions), maps.Clone(s.leaving)
	if p.more != nil {
		n.part.contents = maps.Clone(s.part.contents)
		for set, elems := range n.part.contents {
			n.part.contents[set] = maps.Clone(elems)
		}
	}
	n.apply(p)
	return &n
}

// snapshot is what the table's elements are made from, or a part of that.
type snapshot struct {
	part     policyPart
	devices  map[netip.Addr]place
	sessions map[netip.Addr]session
	policy   *rules.Ruleset
	others   map[netip.Addr]place // all devices, of which devices may be a part
	leaving  map[netip.Addr]time.Time
	led      contents
}

func (s *state) snapshot() snapshot {
	return snapshot{s.part, s.devices, s.sessions, s.policy, s.devices, s.leaving, s.led}
}

// pick is the part of s, as p makes it, that concerns the addresses that p names; that of
// the policy is left out.
func (s *state) pick(p patch) snapshot {
	out := snapshot{devices: make(map[netip.Addr]place), sessions: make(map[netip.Addr]session), policy: p.policy, others: make(map[netip.Addr]place), leaving: p.leaving}
	device := func(a netip.Addr) (place, bool) {
		if x, ok := p.devices[a]; ok {
			if x == nil {
				return place{}, false
			}
			return *x, true
		}
		x, ok := s.devices[a]
		return x, ok
	}
	for a := range p.devices {
		if x, ok := device(a); ok {
			out.devices[a], out.others[a] = x, x
		}
		for _, b := range p.policy.Siblings(a) {
			if x, ok := device(b); ok {
				out.others[b] = x
			}
		}
	}
	for a, x := range p.sessions {
		if x != nil {
			out.sessions[a] = *x
		}
	}
	return out
}

// all gives every element of a snapshot. It shares what it need not copy: it is for reading.
func (s snapshot) all(l layout, now time.Time) contents {
	c := contents{}
	for a, p := range s.devices {
		c.device(a, p)
		if l.self {
			c.siblings(s.policy, a, s.others)
		}
	}
	for a, x := range s.sessions {
		c.session(l, a, s.devices[a], x, now)
	}
	for a, until := range s.leaving {
		c.leaving(a, until, now)
	}
	c.merge(s.part.contents)
	if l.services {
		c.merge(s.led)
	}
	return c
}

// layout is the one that s asks for, beginning with base.
func (s *state) layout(base layout) layout {
	l := base.of(s.gateway, s.part)
	l.services = len(s.services) > 0
	for a := range s.devices {
		if len(s.policy.Siblings(a)) > 0 {
			l.self = true
			break
		}
	}
	return l
}

// turned says whether the policy's hours have turned since s.part was made.
func (s *state) turned(now time.Time) bool {
	next := s.policy.Next(s.judged)
	return !next.IsZero() && !next.After(now)
}

func (s *state) inNetwork(a netip.Addr) bool {
	return slices.ContainsFunc(s.gateway.Network, func(p netip.Prefix) bool { return p.Contains(a) })
}

// alive says whether a flow may go on: by its mark it belongs to a chain of codes, and it
// is allowed if some grant's freshness is longer than each gap in that chain.
func (s *state) alive(fl tracked, now time.Time) bool {
	p := rules.Packet{
		Src: fl.Src, Dst: fl.Dst, Proto: fl.Proto, DstPort: fl.DstPort,
		SrcSession: s.sessions[fl.Src].worth(), DstSession: s.sessions[fl.Dst].worth(),
	}
	if _, ok := s.devices[fl.Src]; ok {
		p.SrcSession = s.sessions[fl.Src].openedBy(fl.mark, now)
	} else {
		p.DstSession = s.sessions[fl.Dst].openedBy(fl.mark, now)
	}
	return s.policy.Verdict(p, now).Allow
}

// worth is the session as the policy sees it.
func (s session) worth() rules.Session {
	if len(s.codes) == 0 {
		return rules.Session{}
	}
	return rules.Session{Until: s.until, Code: s.codes[len(s.codes)-1].At}
}

// openedBy is what the session is worth to a flow with this mark: one whose code is as
// old as the longest gap since the code that the mark names.
func (s session) openedBy(mark uint32, now time.Time) rules.Session {
	i := slices.IndexFunc(s.codes, func(c dataplane.Code) bool { return c.Serial == mark })
	if i < 0 {
		return rules.Session{}
	}
	gap := now.Sub(s.codes[len(s.codes)-1].At)
	for i++; i < len(s.codes); i++ {
		gap = max(gap, s.codes[i].At.Sub(s.codes[i-1].At))
	}
	return rules.Session{Until: s.until, Code: now.Add(-gap)}
}

// serials of all flows that a session's chains may have begun.
func (s session) serials() []uint32 {
	var out []uint32
	for _, c := range s.codes {
		out = append(out, c.Serial)
	}
	return out
}
