package filter

import (
	"net/netip"
	"slices"
	"time"

	"vpnd/internal/dataplane"
)

// how a plan changes the table.
type how int

const (
	change  how = iota // some elements, and chains of classes that are new
	replace            // new sets and rules beside those in force, then over to them
	rebuild            // the table is made anew
)

// inForce is the table that is there.
type inForce struct {
	built  bool // we know what is there
	layout layout
	base   layout // what of a layout depends neither on the policy nor on devices
}

// plan is what it takes to get from one state to another: it is made of both, changes
// nothing, and can be made again when carrying it out has failed.
type plan struct {
	whole    *state // the other state; nil: patch makes it
	patch    patch
	want     layout
	how      how
	del, add contents // of how: change
	cut      cut
}

// next is the state that p leads to.
func (p plan) next(s *state) *state {
	if p.whole != nil {
		return p.whole
	}
	return s.with(p.patch)
}

// planWhole plans the way to a state that is wholly given.
func (s *state) planWhole(next *state, t inForce, now time.Time) plan {
	var gone []netip.Addr
	for a := range s.devices {
		if _, ok := next.devices[a]; !ok {
			next.leaving[a] = now.Add(leave)
			gone = append(gone, a)
		}
	}
	for a, until := range s.leaving {
		if _, ok := next.devices[a]; !ok && until.After(now) {
			next.leaving[a] = until
		}
	}
	p := plan{whole: next, want: next.layout(t.base), cut: cut{refused: true, gone: gone, moved: moved(s.services, next.services)}}
	switch {
	case !t.built:
		p.how = rebuild
	case !p.want.equal(t.layout) || !sameCompile(s.policy, next.policy):
		p.how = replace
	default:
		p.elements(s.snapshot().all(p.want, now), next.snapshot().all(p.want, now))
	}
	return p
}

// planChange plans a change. turned says that the policy's hours have turned since s was
// made. Its cost depends on c alone, if neither that nor another policy is in it.
func (s *state) planChange(c dataplane.Change, ld leader, turned bool, t inForce, now time.Time) plan {
	p := plan{patch: patch{policy: s.policy, devices: make(map[netip.Addr]*place), sessions: make(map[netip.Addr]*session), leaving: make(map[netip.Addr]time.Time)}}
	x := &p.patch
	if c.Rules != nil {
		x.policy = c.Rules
	}
	if c.Services != nil {
		x.services, x.led = c.Services, ld.leads(c.Services)
	}
	newPolicy := !sameCompile(x.policy, s.policy)
	newShape := newPolicy || turned
	if !newShape && x.policy.Shape() != s.policy.Shape() {
		if more, derived := growth(s.policy, x.policy, now); derived {
			x.more = &more
		} else {
			newShape = true
		}
	}
	part := s.part
	if newShape {
		part = compile(x.policy, now)
		x.part, x.judged = &part, now
	}
	for a, until := range s.leaving {
		if !until.After(now) {
			x.leaving[a] = time.Time{}
		}
	}
	lost := s.patchAddrs(x, c, newPolicy, now)
	from := patch{policy: s.policy, devices: make(map[netip.Addr]*place), sessions: make(map[netip.Addr]*session), leaving: make(map[netip.Addr]time.Time)}
	for a := range x.devices {
		if d, ok := s.devices[a]; ok {
			from.devices[a] = &d
		} else {
			from.devices[a] = nil
		}
		if ses, ok := s.sessions[a]; ok {
			from.sessions[a] = &ses
		}
		if until, ok := s.leaving[a]; ok {
			from.leaving[a] = until
		}
	}
	old, cur := s.pick(from), s.pick(*x)
	if x.services != nil {
		old.led, cur.led = s.led, x.led
	}
	if newShape {
		old.part, cur.part = s.part, part
	} else if x.more != nil {
		cur.part = *x.more
		part.fresh, part.off, part.levels = joined(part, *x.more)
	}

	if newShape || !t.built {
		p.want = t.base.of(s.gateway, part)
		p.want.self = s.selfIn(x)
	} else {
		p.want = t.layout
		p.want.fresh, p.want.off, p.want.levels = part.fresh, part.off, part.levels
		for a := range cur.devices {
			p.want.self = p.want.self || len(x.policy.Siblings(a)) > 0
		}
	}
	p.want.services = len(s.services) > 0
	if x.services != nil {
		p.want.services = len(x.services) > 0
	}
	switch {
	case !t.built:
		p.how = rebuild
	case newPolicy || !p.want.equal(t.layout):
		p.how = replace
	default:
		p.elements(old.all(p.want, now), cur.all(p.want, now))
	}
	if newPolicy || turned {
		p.cut = cut{refused: true, gone: goneOf(c, cur)}
	} else {
		p.cut = cutOf(old, cur, c, lost, p.want.fresh, part.off, now)
	}
	if x.services != nil {
		p.cut.moved = moved(s.services, x.services)
	}
	return p
}

// patchAddrs fills x with what c makes of each address, and returns those whose
// permissions are fewer, unless the policy is another one.
func (s *state) patchAddrs(x *patch, c dataplane.Change, newPolicy bool, now time.Time) (lost []netip.Addr) {
	touch := func(addrs ...netip.Addr) {
		for _, a := range addrs {
			if _, done := x.devices[a]; done {
				continue
			}
			x.devices[a], x.sessions[a] = nil, nil
			if _, ok := s.devices[a]; ok {
				p := placeOf(x.policy, a)
				x.devices[a] = &p
			}
			if ses, ok := s.sessions[a]; ok {
				x.sessions[a] = &ses
			}
		}
	}
	for _, d := range slices.Concat(c.RemoveDevices, c.PutDevices) {
		touch(d.Addrs...)
	}
	for _, d := range slices.Concat(c.EndSessions, c.PutSessions) {
		touch(d.Addrs...)
	}
	if newPolicy {
		for a, was := range s.devices {
			if placeOf(x.policy, a) != was || !slices.Equal(x.policy.Siblings(a), s.policy.Siblings(a)) {
				touch(a)
			}
		}
	} else {
		for a := range x.devices {
			if x.policy.Loses(s.policy, a) {
				lost = append(lost, a)
			}
		}
	}
	for _, d := range c.RemoveDevices {
		for _, a := range d.Addrs {
			x.devices[a], x.sessions[a], x.leaving[a] = nil, nil, now.Add(leave)
		}
	}
	for _, d := range c.PutDevices {
		for _, a := range d.Addrs {
			p := placeOf(x.policy, a)
			x.devices[a], x.leaving[a] = &p, time.Time{}
		}
	}
	for _, d := range c.EndSessions {
		for _, a := range d.Addrs {
			x.sessions[a] = nil
		}
	}
	for _, d := range c.PutSessions {
		for _, a := range d.Addrs {
			x.sessions[a] = &session{until: d.Until, codes: d.Codes}
		}
	}
	return lost
}

// selfIn says whether x makes a state of s in which autogroup:self adds something.
func (s *state) selfIn(x *patch) bool {
	for a, d := range x.devices {
		if d != nil && len(x.policy.Siblings(a)) > 0 {
			return true
		}
	}
	for a := range s.devices {
		if _, patched := x.devices[a]; !patched && len(x.policy.Siblings(a)) > 0 {
			return true
		}
	}
	return false
}

// elements makes p a plan to delete and add what differs. What has changed is in both.
func (p *plan) elements(old, want contents) {
	p.how, p.del, p.add = change, contents{}, contents{}
	old.missing(want, p.del)
	want.missing(old, p.add)
	for _, s := range p.want.sets() {
		if s.Interval && len(p.del[s.Name])+len(p.add[s.Name]) > 0 {
			// Kernels differ in what they think of intervals that change within a
			// transaction. Prefixes change with the policy only: build anew.
			p.how = replace
		}
	}
}

// part is the policy's part after p, without contents where it only grows.
func (p plan) part(s *state) policyPart {
	switch x := s.part; {
	case p.whole != nil:
		return p.whole.part
	case p.patch.part != nil:
		return *p.patch.part
	case p.patch.more != nil:
		x.contents = nil
		x.add(policyPart{classes: p.patch.more.classes, roles: p.patch.more.roles, top: p.patch.more.top})
		return x
	default:
		return x
	}
}
