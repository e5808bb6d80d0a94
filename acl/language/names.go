package language

import (
	"slices"
)

// CheckNames warns about names of users that nobody has (known is in lower case). Where
// all users are known it refuses bare names of destinations that are neither a user nor a
// host nor a resource.
func (p *Policy) CheckNames(f *Faults, known map[string]bool, all bool) {
	things := func() []string { return slices.Concat(p.Hosts(), p.Resources()) }
	check := func(t Selector, isDst bool) {
		switch {
		case t.Kind == SelectResource && known[Fold(t.Name)]:
			f.warnf(t.At, CodeHostOrUser, "%q is the resource here, not the user of that name: for the user write %q", t.Name, t.Name+"@")
		case t.Kind == SelectHost && known[Fold(t.Name)]:
			f.warnf(t.At, CodeHostOrUser, "%q is the host here, not the user of that name: for the user write %q", t.Name, t.Name+"@")
		case t.Kind != SelectUser || known[t.Name]:
		case isDst && t.bare && all:
			f.Errorf(t.At, CodeUnknownName, "there is no resource, host or user %q: define it in \"resources\" or \"hosts\", or write %q for a user who is to come%s", t.Name, t.Name+"@", f.hint(t.Name, things))
		default:
			f.warnf(t.At, CodeUnknownUser, "there is no user %q yet", t.Name)
		}
	}
	for _, g := range p.grants {
		for _, t := range g.Src {
			check(t, false)
		}
		for _, d := range g.Dst {
			check(d.Selector, true)
		}
	}
	for _, name := range p.Groups() {
		for _, m := range p.groups[name].users {
			if !known[m.name] {
				f.warnf(m.at, CodeUnknownUser, "there is no user %q yet", m.name)
			}
		}
	}
	for _, t := range p.tests {
		for _, x := range t.Src {
			check(x, false)
		}
		// A "deny" of a name that nobody has would hold whatever is granted.
		for _, d := range slices.Concat(t.Accept, t.Deny) {
			check(d.Selector, true)
		}
	}
}
