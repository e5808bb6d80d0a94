package control

import (
	"net/netip"
	"slices"
	"time"

	"vpnd/acl/language"
	"vpnd/acl/review"
	"vpnd/acl/rules"
	"vpnd/peers"
)

// PolicyDiff is what a text changes against a version of the policy.
type PolicyDiff struct {
	Base    uint64
	Changes []PolicyChange
	Moves   []ResourceMove
	// How many open sessions lose something at once, and how many gain something.
	Losing, Gaining int
}

// ResourceMove is a resource whose target changes.
type ResourceMove struct{ Name, Before, After string }

// moves are the resources of both policies that lead somewhere else, or are called in another
// way.
func moves(before, after *language.Policy) (list []ResourceMove) {
	for _, name := range before.Resources() {
		if b := after.Resource(name); b != nil {
			if x, y := leads(before.Resource(name)), leads(b); x != y {
				list = append(list, ResourceMove{name, x, y})
			}
		}
	}
	return list
}

// leads says where a resource leads, and how it is called.
func leads(r *language.Resource) string {
	s := r.ToText()
	if r.ProxyV2 {
		s += ", told who calls"
	}
	if r.FromGateway {
		s += ", from the gateway"
	}
	return s
}

// PolicyChange is a change with what it does to open sessions at once.
type PolicyChange struct {
	review.Change
	Losing, Gaining int
}

// DiffPolicy tells who would gain and who would lose what if a text became the policy
// instead of version base (0: the current one). With faults, the diff is nil.
func (s *Service) DiffPolicy(text string, base uint64) (*PolicyDiff, language.ErrorList, error) {
	if len(text) > maxPolicy {
		return nil, nil, tooLarge(text)
	}
	v := s.View()
	set, _ := v.Settings()
	old, err := policyVersion(v, base)
	if err != nil {
		return nil, nil, err
	}
	devices := subjects(v)
	devices = append(devices, deviceless(v, set, devices)...)
	after, problems, err := compilePolicy(v, set.Session, text, devices)
	if err != nil || after == nil {
		return nil, problems, err
	}
	o, err := v.PolicyOptionsFor(old.Resources)
	if err != nil {
		return nil, nil, err
	}
	before, err := compileInForce(old, o, devices)
	if err != nil {
		return nil, nil, err
	}
	d := &PolicyDiff{Base: old.Version, Moves: moves(before.Policy(), after.Policy())}
	w := newImpact(v, before, after, s.Time(v))
	for _, c := range review.Changes(review.Diff(before, after)) {
		losing, gaining := w.of(c)
		d.Changes = append(d.Changes, PolicyChange{c, losing, gaining})
	}
	d.Losing, d.Gaining = len(w.losing), len(w.gaining)
	return d, problems, nil
}

// deviceless stands in for people who have no device yet: one each, at addresses that
// nobody has, from the network's end. A policy is often applied before its people enrol.
func deviceless(v *peers.View, set peers.Settings, devices []rules.Subject) (out []rules.Subject) {
	has := map[string]bool{}
	for _, d := range devices {
		if len(d.Tags) == 0 {
			has[d.User] = true
		}
	}
	var next []netip.Addr
	for _, n := range set.Network {
		next = append(next, lastOf(n).Prev()) // the last one of IPv4 is for broadcasts
	}
	for u := range v.Users() {
		if u.Disabled || has[u.Name] {
			continue
		}
		one := rules.Subject{Device: u.Name, User: u.Name}
		for i, n := range set.Network {
			for n.Contains(next[i]) && v.DeviceByAddr(next[i]) != nil {
				next[i] = next[i].Prev()
			}
			if n.Contains(next[i]) && !slices.Contains(set.GatewayAddrs(), next[i]) {
				one.Addrs = append(one.Addrs, next[i])
				next[i] = next[i].Prev()
			}
		}
		if len(one.Addrs) > 0 { // else the network is full, and she cannot enrol either
			out = append(out, one)
		}
	}
	return out
}

// lastOf is the last address of a prefix.
func lastOf(p netip.Prefix) netip.Addr {
	b := p.Addr().AsSlice()
	for i := p.Bits(); i < len(b)*8; i++ {
		b[i/8] |= 1 << (7 - i%8)
	}
	a, _ := netip.AddrFromSlice(b) // of 4 or 16 bytes, as it came
	return a
}

// compileInForce compiles a version as the gateway does that enforces it.
func compileInForce(p *peers.PolicyVersion, o rules.Options, devices []rules.Subject) (*rules.Ruleset, error) {
	o.Stored = true
	ruleset, err := rules.Compile(language.ParseStored([]byte(p.Text)), o, devices)
	if err != nil {
		return nil, internal("compile a version of the policy", err)
	}
	return ruleset, nil
}

func tooLarge(text string) *Error {
	return Refuse("policy_too_large", len(text), maxPolicy)
}

// impact finds the open sessions that a change opens something to, or closes something.
type impact struct {
	before, after   *rules.Ruleset
	now             time.Time
	live            map[netip.Addr]signedIn
	losing, gaining map[peers.ID]bool // devices, of all changes so far
}

// signedIn is a device with an open session.
type signedIn struct {
	device  peers.ID
	session rules.Session
}

func newImpact(v *peers.View, before, after *rules.Ruleset, now time.Time) *impact {
	w := &impact{before: before, after: after, now: now, live: map[netip.Addr]signedIn{},
		losing: map[peers.ID]bool{}, gaining: map[peers.ID]bool{}}
	for ss := range v.Sessions() {
		d := v.Device(ss.Device)
		if d == nil || !now.Before(ss.Until) {
			continue
		}
		for _, a := range d.Addrs {
			w.live[a] = signedIn{d.ID, rules.Session{Until: ss.Until, Code: CodeAt(ss)}}
		}
	}
	return w
}

// of counts the sessions. What holds for one destination of a change holds for all of
// its kind, so that one of each is looked at; and what holds for one port, for all.
func (w *impact) of(c review.Change) (losing, gaining int) {
	lost, gained := map[peers.ID]bool{}, map[peers.ID]bool{}
	to := w.kinds(c.Destinations)
	for _, p := range c.Sources {
		for _, x := range p.Prefixes {
			if s, ok := w.live[x.Addr()]; ok && x.IsSingleIP() {
				for _, dst := range to {
					w.compare(c, x.Addr(), dst, s.device, lost, gained)
				}
			}
		}
	}
	// Where the source is no device, the code of the device at the other end counts.
	for _, src := range w.kinds(c.Sources) {
		if _, _, isDevice := w.before.Device(src); isDevice {
			continue
		}
		for _, p := range c.Destinations {
			for _, x := range p.Prefixes {
				if d, ok := w.live[x.Addr()]; ok && x.IsSingleIP() {
					w.compare(c, src, x.Addr(), d.device, lost, gained)
				}
			}
		}
	}
	for d := range lost {
		w.losing[d] = true
	}
	for d := range gained {
		w.gaining[d] = true
	}
	return len(lost), len(gained)
}

// compare asks both policies about one pair of ends.
func (w *impact) compare(c review.Change, src, dst netip.Addr, device peers.ID, lost, gained map[peers.ID]bool) {
	if src == dst || src.Is4() != dst.Is4() {
		return
	}
	p := rules.Packet{Src: src, Dst: dst, Proto: c.Proto, DstPort: c.First,
		SrcSession: w.live[src].session, DstSession: w.live[dst].session}
	before, after := w.before.Verdict(p, w.now).Allow, w.after.Verdict(p, w.now).Allow
	switch {
	case before && !after:
		lost[device] = true
	case !before && after:
		gained[device] = true
	}
}

// kinds picks addresses that stand for all of some places: of each family one that is no
// device's, and two that are, with and without a session: one may be the other end.
func (w *impact) kinds(places []review.Place) (out []netip.Addr) {
	type kind struct{ is4, device, live bool }
	left := map[kind]int{}
	for _, is4 := range []bool{true, false} {
		left[kind{is4, false, false}] = 1
		left[kind{is4, true, false}], left[kind{is4, true, true}] = 2, 2
	}
	for _, p := range places {
		for _, x := range p.Prefixes {
			a := x.Addr()
			k := kind{is4: a.Is4()}
			if x.IsSingleIP() {
				_, _, k.device = w.before.Device(a)
				_, k.live = w.live[a]
			}
			if left[k] > 0 {
				left[k]--
				out = append(out, a)
			}
		}
	}
	return out
}
