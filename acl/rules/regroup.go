package rules

import (
	"slices"

	"vpnd/acl/internal/layered"
)

// Regroup is the short way to the Ruleset of a text that differs from r's own in the
// people of one group alone, which is how a policy changes most often: its cost is that of
// comparing the texts, while Parse and Compile look at every grant and every device. The
// users are those whose groups have changed: to be in force for their devices, the Ruleset
// needs them put again by With.
//
// ok is false for any other text, also one with a fault: then Parse and Compile say what
// it means. It is for policies that were accepted before (Options.Stored), of which nobody
// wants to know what is doubtful in the text.
func (r *Ruleset) Regroup(text string) (next *Ruleset, users []string, ok bool) {
	c := r.c
	// Roles and zones that nobody has any more stay: at some time they are too many.
	if !c.options.Stored || len(c.roles)+len(c.zones) > 2*c.made+layered.MaxOver {
		return nil, nil, false
	}
	p, users, moved, ok := c.policy.Regroup([]byte(text))
	if !ok {
		return nil, nil, false
	}
	pr, n := *c.program, *c
	n.program, pr.policy = &pr, p
	pr.grants = slices.Clone(pr.grants)
	for i := range pr.grants {
		g := &pr.grants[i]
		g.Line, g.Column = moved(g.Line, g.Column)
	}
	n.warnings = slices.Clone(n.warnings)
	for i := range n.warnings {
		w := &n.warnings[i]
		w.Line, w.Column = moved(w.Line, w.Column)
	}
	return &Ruleset{&n}, users, true
}
