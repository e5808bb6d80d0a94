package acl

import (
	"slices"
	"strings"
)

// CheckNames warns about names of users that nobody has (known is in lower case). Where
// all users are known it refuses bare names of destinations that are neither a user nor a
// host.
func (p *Policy) CheckNames(f *faults, known map[string]bool, all bool) {
	check := func(t target, isDst bool) {
		switch {
		case t.kind == hostTarget && known[strings.ToLower(t.name)]:
			f.warnf(t.at, "%q is the host here, not the user of that name: for the user write %q", t.name, t.name+"@")
		case t.kind != userTarget || known[t.name]:
		case isDst && t.bare && all:
			f.errorf(t.at, "there is no host and no user %q: define it in \"hosts\", or write %q for a user who is to come%s", t.name, t.name+"@", f.hint(t.name, p.Hosts))
		default:
			f.warnf(t.at, "there is no user %q yet", t.name)
		}
	}
	for _, g := range p.grants {
		for _, t := range g.src {
			check(t, false)
		}
		for _, d := range g.dst {
			check(d.target, true)
		}
	}
	for _, name := range p.Groups() {
		for _, m := range p.groups[name].users {
			if !known[m.name] {
				f.warnf(m.at, "there is no user %q yet", m.name)
			}
		}
	}
	for _, t := range p.tests {
		for _, x := range t.src {
			check(x, false)
		}
		// A "deny" of a name that nobody has would hold whatever is granted.
		for _, d := range slices.Concat(t.accept, t.deny) {
			check(d.target, true)
		}
	}
}
