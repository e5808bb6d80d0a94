package language

import (
	"maps"
	"net/netip"
	"slices"
)

// Warnings are what is doubtful in the text though it means something.
func (p *Policy) Warnings() ErrorList { return slices.Clone(p.warnings) }

// Faults collects what else is found wrong with the text.
func (p *Policy) Faults() *Faults { return &Faults{src: p.src} }

// Position is the line and column, both from 1, at which a part of the text begins.
func (p *Policy) Position(at TextRange) (line, column int) { return p.src.position(at.Start) }

// Text is the text that was parsed.
func (p *Policy) Text() []byte { return slices.Clone(p.src.text) }

// Groups are the names of the groups, sorted.
func (p *Policy) Groups() []string { return slices.Sorted(maps.Keys(p.groups)) }

// Members are the users of a group, those of nested groups included, sorted and in
// lower case; ok is false if there is no such group.
func (p *Policy) Members(group string) (users []string, ok bool) {
	g := p.groups[group]
	if g == nil {
		return nil, false
	}
	return slices.Clone(g.flat), true
}

// Listed are the users and groups that stand in a group itself, in the order of the text.
func (p *Policy) Listed(group string) []string {
	g := p.groups[group]
	if g == nil {
		return nil
	}
	all := slices.Concat(g.users, g.groups)
	slices.SortFunc(all, func(a, b member) int { return a.at.Start - b.at.Start })
	out := make([]string, len(all))
	for i, m := range all {
		out[i] = m.name
	}
	return out
}

// GroupsOf are the groups that a user is in, through nested groups too, sorted.
func (p *Policy) GroupsOf(user string) []string {
	return slices.Clone(p.GroupsOfLower(Fold(user)))
}

// GroupsOfLower is GroupsOf of a name in lower case. The list must not be changed.
func (p *Policy) GroupsOfLower(user string) []string {
	list, _ := p.groupsOf.Get([]byte(user))
	return list
}

// IsIn tells whether a user, in lower case, is in a group.
func (p *Policy) IsIn(group, user string) bool {
	return slices.Contains(p.GroupsOfLower(user), group)
}

// Chain says how a group comes to have a user: "group:all through group:ops".
func (p *Policy) Chain(name, user string) string {
	g := p.groups[name]
	if slices.ContainsFunc(g.users, func(m member) bool { return m.name == user }) {
		return name
	}
	for _, m := range g.groups {
		if _, in := slices.BinarySearch(p.groups[m.name].flat, user); in {
			return name + " through " + p.Chain(m.name, user)
		}
	}
	return name
}

// Tags are the tags that there are, sorted.
func (p *Policy) Tags() []string { return slices.Sorted(maps.Keys(p.tags)) }

// MayTag tells whether a user, who is no administrator, may give a tag to a device.
func (p *Policy) MayTag(user, tag string) bool {
	o := p.tags[tag]
	if o == nil {
		return false
	}
	user = Fold(user)
	return slices.ContainsFunc(o.owners, func(t Selector) bool {
		switch t.Kind {
		case SelectMembers:
			return true
		case SelectUser:
			return t.Name == user
		default:
			return p.IsIn(t.Name, user)
		}
	})
}

// Hosts are the names of the hosts, the gateway's "app" included, sorted.
func (p *Policy) Hosts() []string {
	return slices.Sorted(slices.Values(append(slices.Collect(maps.Keys(p.hosts)), AppHost)))
}

// HostPrefix is what a host stands for; ok is false if there is none, or it is the gateway.
func (p *Policy) HostPrefix(name string) (prefix netip.Prefix, ok bool) {
	h, ok := p.hosts[name]
	return h.prefix, ok
}

// IPSets are the names of the IP sets, sorted.
func (p *Policy) IPSets() []string { return slices.Sorted(maps.Keys(p.ipsets)) }

// Grants are the grants of "acls" and "grants", in the order of the text. They must not
// be changed.
func (p *Policy) Grants() []*Grant { return p.grants }

// Tests are the entries of "tests". They must not be changed.
func (p *Policy) Tests() []*Test { return p.tests }

// IPSet is an entry of "ipsets"; nil if there is none.
func (p *Policy) IPSet(name string) *IPSet { return p.ipsets[name] }

// Names finds a prefix for which is holds among those that a selector names in the text: its
// own, its host's, and what an IP set adds. What is found of IP sets is kept in known, so that
// each is looked at once.
func (p *Policy) Names(t Selector, known map[string]netip.Prefix, is func(netip.Prefix) bool) (found netip.Prefix, ok bool) {
	switch t.Kind {
	case SelectPrefix:
		found = t.Prefix
	case SelectHost:
		found = p.hosts[t.Name].prefix
	case SelectIPSet:
		found, seen := known[t.Name]
		if seen || p.ipsets[t.Name] == nil {
			return found, found.IsValid()
		}
		known[t.Name] = netip.Prefix{} // also where a set contains itself
		for _, op := range p.ipsets[t.Name].Ops {
			if op.Remove {
				continue
			}
			if x, ok := p.Names(op.Selector, known, is); ok {
				known[t.Name] = x
				return x, true
			}
		}
		return netip.Prefix{}, false
	}
	return found, found.IsValid() && is(found)
}
