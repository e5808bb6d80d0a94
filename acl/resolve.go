package acl

import (
	"maps"
	"slices"
	"strings"
)

// maxMembers is the most memberships of all groups together, those of nested groups
// counted in every group that they end up in.
const maxMembers = 1_000_000

// resolve checks what refers to names of other sections, when all of them are read.
func (d *decoder) resolve(p *Policy) {
	d.resolveGroups(p)
	d.resolveIPSets(p)
	for _, g := range p.grants {
		if g == nil {
			continue
		}
		for i := range g.src {
			d.resolveTarget(p, &g.src[i])
		}
		for i := range g.dst {
			d.resolveTarget(p, &g.dst[i].target)
		}
	}
	for _, o := range p.tags {
		for i := range o.owners {
			d.resolveTarget(p, &o.owners[i])
		}
	}
	for _, t := range p.tests {
		for i := range t.src {
			d.resolveTarget(p, &t.src[i])
		}
		for _, list := range [][]testDst{t.accept, t.deny} {
			for i := range list {
				d.resolveTarget(p, &list[i].target)
			}
		}
	}
}

// resolveTarget finds what a name stands for.
func (d *decoder) resolveTarget(p *Policy, t *target) {
	switch t.kind {
	case nameTarget:
		if _, ok := p.hosts[t.name]; ok || t.name == appHost {
			t.kind = hostTarget
		} else {
			t.kind, t.name = userTarget, strings.ToLower(t.name)
		}
	case groupTarget:
		if p.groups[t.name] == nil {
			d.errorf(t.at, "there is no group %q: define it in \"groups\"%s", t.name, d.hint(t.name, p.Groups))
		}
	case tagTarget:
		if p.tags[t.name] == nil {
			d.errorf(t.at, "there is no tag %q: define it in \"tagOwners\"%s", t.name, d.hint(t.name, p.Tags))
		}
	case hostTarget:
		if _, ok := p.hosts[t.name]; !ok && t.name != appHost {
			d.errorf(t.at, "there is no host %q: define it in \"hosts\"%s", t.name, d.hint(t.name, p.Hosts))
		}
	case ipsetTarget:
		if p.ipsets[t.name] == nil {
			d.errorf(t.at, "there is no IP set %q: define it in \"ipsets\"%s", t.name, d.hint(t.name, p.IPSets))
		}
	}
}

// resolveGroups puts nested groups into those that contain them.
func (d *decoder) resolveGroups(p *Policy) {
	const opened, done = 1, 2
	state := map[string]int{}
	total := 0
	var open func(name string, depth int)
	open = func(name string, depth int) {
		g := p.groups[name]
		state[name] = opened
		for _, m := range g.groups {
			inner := p.groups[m.name]
			switch {
			case inner == nil:
				d.errorf(m.at, "there is no group %q: define it in \"groups\"%s", m.name, d.hint(m.name, p.Groups))
				continue
			case state[m.name] == opened:
				d.errorf(m.at, "the group %q contains itself through %q: take one of them out", m.name, name)
				continue
			case depth >= maxNesting:
				d.errorf(m.at, "groups are nested more than %d deep: list the users of %q directly", maxNesting, m.name)
				continue
			case state[m.name] == 0:
				open(m.name, depth+1)
			}
			if total += len(inner.flat); total > maxMembers {
				break
			}
		}
		if total <= maxMembers {
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
		if total > maxMembers {
			d.errorf(p.groups[name].at, "the groups have more than %d members in all, nested ones counted: use fewer or less nested groups", maxMembers)
			return
		}
		for _, u := range p.groups[name].flat {
			groupsOf[u] = append(groupsOf[u], name)
		}
	}
	p.groupsOf.base = groupsOf
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

// maxNesting is the most levels of groups inside groups, and of IP sets inside IP sets.
const maxNesting = 10

// resolveIPSets checks that IP sets refer to what exists and not to themselves.
func (d *decoder) resolveIPSets(p *Policy) {
	const opened, done = 1, 2
	state := map[string]int{}
	var open func(name string, depth int)
	open = func(name string, depth int) {
		state[name] = opened
		for i := range p.ipsets[name].ops {
			t := &p.ipsets[name].ops[i].target
			d.resolveTarget(p, t)
			switch {
			case t.kind != ipsetTarget || p.ipsets[t.name] == nil:
			case state[t.name] == opened:
				d.errorf(t.at, "the IP set %q contains itself through %q: take one of them out", t.name, name)
			case depth >= maxNesting:
				d.errorf(t.at, "IP sets are nested more than %d deep: list the prefixes of %q directly", maxNesting, t.name)
			case state[t.name] == 0:
				open(t.name, depth+1)
			}
		}
		state[name] = done
	}
	for _, name := range slices.Sorted(maps.Keys(p.ipsets)) {
		if state[name] == 0 {
			open(name, 1)
		}
	}
}
