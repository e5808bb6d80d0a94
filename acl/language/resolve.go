package language

import (
	"math"
	"net/netip"
	"slices"
)

// MaxMembers is the most memberships of all groups together, those of nested groups
// counted in every group that they end up in.
const MaxMembers = 1_000_000

// resolve checks what refers to names of other sections, when all of them are read. What a
// selector may be is checked here, too, not where it is read: a bare name may be a host.
func (d *decoder) resolve(p *Policy) {
	d.resolveGroups(p)
	d.resolveResources(p)
	d.resolveIPSets(p)
	p.grants = slices.DeleteFunc(p.grants, func(g *Grant) bool {
		return g == nil || !d.part(g.At, givesNothing, func() { d.resolveGrant(p, g) })
	})
	for _, o := range p.tags {
		o.owners = slices.DeleteFunc(o.owners, func(t Selector) bool {
			return !d.part(t.At, leftOut, func() { d.resolveSelector(p, &t) })
		})
	}
	p.tests = slices.DeleteFunc(p.tests, func(t *Test) bool {
		return !d.part(t.At, leftOut, func() { d.resolveTest(p, t) })
	})
}

func (d *decoder) resolveGrant(p *Policy, g *Grant) {
	for i := range g.Src {
		d.resolveSelector(p, &g.Src[i])
		if g.Src[i].Kind == SelectResource {
			d.Errorf(g.Src[i].At, CodeResourceAsSource, "the resource %q begins no flows: as a source write users, groups, tags, hosts or prefixes", g.Src[i].Name)
		}
	}
	self, missing := false, false
	for i := range g.Dst {
		dst := &g.Dst[i]
		d.resolveSelector(p, &dst.Selector)
		self = self || dst.Kind == SelectSelf
		switch {
		case dst.Kind == SelectResource:
			var err error
			if dst.Spans, err = p.resources[dst.Name].on(dst.Spans); err != nil {
				d.Err(dst.At, err)
			}
		case dst.Spans == nil:
			missing = true
		default:
			d.checkDestination(p, &dst.Selector)
		}
	}
	if i := slices.IndexFunc(g.Dst, func(x destination) bool { return x.Kind == SelectResource }); i >= 0 {
		for _, src := range g.Src {
			if src.Kind == SelectPrefix || src.Kind == SelectHost || src.Kind == SelectIPSet {
				d.Errorf(src.At, CodeResourceFromNetwork, "%q cannot reach the resource %q, which answers devices inside of the tunnel alone: as sources write users, groups, tags or \"*\"", src, g.Dst[i].Name)
			}
		}
	}
	if missing {
		d.Errorf(TextRange{g.At.Start, g.At.Start + 1}, CodeMissingKey, "a grant needs \"ip\", unless all of its destinations are resources: protocols and ports like \"tcp:443\", or \"*\"")
	}
	if !self {
		return
	}
	for _, src := range g.Src {
		switch src.Kind {
		case SelectUser, SelectGroup, SelectMembers:
		default:
			d.Errorf(src.At, CodeSelfWithoutDevices, "%q has no devices of its own: with autogroup:self the sources are users, groups or autogroup:member", src)
		}
	}
}

func (d *decoder) resolveTest(p *Policy, t *Test) {
	for i := range t.Src {
		d.resolveSelector(p, &t.Src[i])
	}
	for _, list := range [][]TestDst{t.Accept, t.Deny} {
		for i := range list {
			d.resolveSelector(p, &list[i].Selector)
		}
	}
}

// checkDestination refuses addresses that no gateway carries anything to, by whatever name.
func (d *decoder) checkDestination(p *Policy, t *Selector) {
	if prefix, found := p.Names(*t, d.carried, func(x netip.Prefix) bool { return notCarried(x) != "" }); found {
		d.Errorf(t.At, CodeBadDestination, "%q %s", t.String(), notCarried(prefix))
	}
}

// notCarried is why no gateway carries anything to a prefix; "" if one does.
func notCarried(prefix netip.Prefix) string {
	switch a := prefix.Addr(); {
	case a.IsLoopback() && prefix.Bits() >= 8:
		return "is the gateway's own loopback: publish what listens there as a resource, with \"to\": \"localhost:PORT\""
	case a.IsLinkLocalUnicast() && prefix.Bits() >= 10:
		return "is link-local, which no gateway forwards"
	case a.IsMulticast() && prefix.Bits() >= 4:
		return "is multicast, which does not pass the tunnel"
	}
	return ""
}

// resolveResources sees to it that a name is a host's or a resource's, not both.
func (d *decoder) resolveResources(p *Policy) {
	for _, name := range p.Resources() {
		r := p.resources[name]
		if !d.part(r.At, takesAlong, func() {
			if _, ok := p.hosts[name]; ok {
				d.Errorf(r.At, CodeDuplicate, "%q stands in \"hosts\" and in \"resources\": give one of them another name, or take the host out where the resource is meant", name)
			}
			if _, ok := p.hosts[r.To.Name]; ok && r.To.Name != "" {
				d.Errorf(r.To.At, CodeUnknownName, "the target %q is looked up by DNS, not in \"hosts\": write the host's address here", r.To.Name)
			}
		}) {
			delete(p.resources, name)
			p.refused[name] = true
		}
	}
}

// resolveSelector finds what a name stands for.
func (d *decoder) resolveSelector(p *Policy, t *Selector) {
	if p.refused[t.Name] && (t.Kind == SelectName || t.Kind == SelectResource || t.Kind == SelectHost || t.Kind == SelectIPSet) {
		d.Errorf(t.At, CodeRefusedPart, "it names %q, which is refused", t.Name)
		return
	}
	switch t.Kind {
	case SelectName:
		if _, ok := p.hosts[t.Name]; ok || t.Name == AppHost {
			t.Kind = SelectHost
		} else if p.resources[t.Name] != nil {
			t.Kind = SelectResource
		} else {
			t.Kind, t.Name = SelectUser, Fold(t.Name)
		}
	case SelectGroup:
		if p.groups[t.Name] == nil {
			d.Errorf(t.At, CodeUnknownGroup, "there is no group %q: define it in \"groups\"%s", t.Name, d.hint(t.Name, p.Groups))
		}
	case SelectTag:
		if p.tags[t.Name] == nil {
			d.Errorf(t.At, CodeUnknownTag, "there is no tag %q: define it in \"tagOwners\"%s", t.Name, d.hint(t.Name, p.Tags))
		}
	case SelectHost:
		if _, ok := p.hosts[t.Name]; !ok && t.Name != AppHost {
			d.Errorf(t.At, CodeUnknownHost, "there is no host %q: define it in \"hosts\"%s", t.Name, d.hint(t.Name, p.Hosts))
		}
	case SelectIPSet:
		if p.ipsets[t.Name] == nil {
			d.Errorf(t.At, CodeUnknownIPSet, "there is no IP set %q: define it in \"ipsets\"%s", t.Name, d.hint(t.Name, p.IPSets))
		}
	}
}

// resolveGroups puts nested groups into those that contain them.
func (d *decoder) resolveGroups(p *Policy) {
	const opened, done = 1, 2
	state := map[string]int{}
	total, most := 0, MaxMembers
	if d.stored {
		most = math.MaxInt
	}
	var open func(name string, depth int)
	open = func(name string, depth int) {
		g := p.groups[name]
		state[name] = opened
		g.groups = slices.DeleteFunc(g.groups, func(m member) bool {
			return !d.part(m.at, leftOut, func() {
				inner := p.groups[m.name]
				switch {
				case total > most:
				case inner == nil:
					d.Errorf(m.at, CodeUnknownGroup, "there is no group %q: define it in \"groups\"%s", m.name, d.hint(m.name, p.Groups))
				case state[m.name] == opened:
					d.Errorf(m.at, CodeCycle, "the group %q contains itself through %q: take one of them out", m.name, name)
				case depth >= MaxNesting && !d.stored:
					d.Errorf(m.at, CodeOverLimit, "groups are nested more than %d deep: list the users of %q directly", MaxNesting, m.name)
				default:
					if state[m.name] == 0 {
						open(m.name, depth+1)
					}
					total += len(inner.flat)
				}
			})
		})
		if total <= most {
			g.flat = p.gather(g)
			total += len(g.flat)
		}
		state[name] = done
	}
	groupsOf := map[string][]string{}
	for _, name := range p.Groups() {
		if state[name] == 0 {
			open(name, 1)
		}
		if total > most {
			d.Errorf(p.groups[name].at, CodeOverLimit, "the groups have more than %d members in all, nested ones counted: use fewer or less nested groups", MaxMembers)
			return
		}
		for _, u := range p.groups[name].flat {
			groupsOf[u] = append(groupsOf[u], name)
		}
	}
	p.groupsOf.Base = groupsOf
}

// gather is everybody in a group, sorted; the groups in it have been gathered before.
func (p *Policy) gather(g *group) []string {
	flat := make([]string, 0, len(g.users))
	for _, m := range g.users {
		flat = append(flat, m.name)
	}
	for _, m := range g.groups {
		if inner := p.groups[m.name]; inner != nil {
			flat = append(flat, inner.flat...)
		}
	}
	slices.Sort(flat)
	return slices.Compact(flat)
}

// members counts the members of all groups as maxMembers does.
func (p *Policy) members() (total int) {
	for _, g := range p.groups {
		total += len(g.flat)
		for _, m := range g.groups {
			total += len(p.groups[m.name].flat)
		}
	}
	return total
}

// MaxNesting is the most levels of groups inside groups, and of IP sets inside IP sets.
const MaxNesting = 10

// resolveIPSets checks that IP sets refer to what exists and not to themselves.
func (d *decoder) resolveIPSets(p *Policy) {
	const opened, done = 1, 2
	state := map[string]int{}
	var open func(name string, depth int)
	element := func(t *Selector, name string, depth int) {
		if t.Kind == SelectIPSet && p.ipsets[t.Name] != nil {
			switch {
			case state[t.Name] == opened:
				d.Errorf(t.At, CodeCycle, "the IP set %q contains itself through %q: take one of them out", t.Name, name)
				return
			case depth >= MaxNesting && !d.stored:
				d.Errorf(t.At, CodeOverLimit, "IP sets are nested more than %d deep: list the prefixes of %q directly", MaxNesting, t.Name)
				return
			case state[t.Name] == 0:
				open(t.Name, depth+1)
			}
		}
		d.resolveSelector(p, t)
	}
	open = func(name string, depth int) {
		state[name] = opened
		set := p.ipsets[name]
		if !d.part(set.At, takesAlong, func() {
			for i := range set.Ops {
				element(&set.Ops[i].Selector, name, depth)
			}
		}) {
			p.refused[name] = true
		}
		state[name] = done
	}
	for _, name := range p.IPSets() {
		if state[name] == 0 {
			open(name, 1)
		}
	}
	for name := range p.refused {
		delete(p.hosts, name)
		delete(p.ipsets, name)
	}
}
