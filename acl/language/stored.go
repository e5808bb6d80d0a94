package language

import (
	"slices"
)

// ParseStored reads a policy that was accepted before, by this version or by one that
// refused less. It never refuses it: a grant that Parse would refuse gives nothing, all
// others hold, and Ignored names it. A member of a group or an owner of a tag that is
// refused is left out; a host or IP set that is refused takes along the grants that name
// it, since without it they might grant something else. No limit of size applies: the
// text is in force already, and its place is in the state.
func ParseStored(text []byte) *Policy {
	p, d := read(text, true)
	list := d.Sorted()
	for _, e := range list {
		if e.Warning {
			p.warnings = append(p.warnings, e)
		} else {
			e.Message, e.Warning = "this is ignored, because it is refused now: "+e.Message, true
			d.ignored = append(d.ignored, e)
		}
	}
	d.ignored.Sort()
	p.ignored = d.ignored
	p.warnings = append(p.warnings, p.ignored...)
	p.warnings.Sort()
	return p
}

// Ignored are the parts of a stored policy that this version refuses, in the order of the
// text; a grant among them is told by where it begins. There are none after Parse.
func (p *Policy) Ignored() ErrorList { return slices.Clone(p.ignored) }

// Stored tells whether the policy was read as one that was accepted before.
func (p *Policy) Stored() bool { return p.stored }

// part reads a part of the text that a stored policy can do without: where it is refused,
// it is noted with what becomes of it, and ok is false. In a new text, faults are faults.
func (d *decoder) part(at TextRange, becomes string, f func()) (ok bool) {
	if !d.stored {
		f()
		return true
	}
	outer := d.Faults
	d.Faults = Faults{src: outer.src, hints: maxHints}
	f()
	own := d.Sorted()
	d.Faults = outer
	i := slices.IndexFunc(own, func(e Error) bool { return !e.Warning })
	if i < 0 {
		d.List = append(d.List, own...)
		return true
	}
	e := Error{Code: own[i].Code, Text: own[i].Text, Message: becomes + ", because it is refused now: " + own[i].Message, Warning: true}
	e.Line, e.Column = d.src.position(at.Start)
	d.ignored = append(d.ignored, e)
	return false
}

// What becomes of refused parts of a stored policy.
const (
	givesNothing = "this grant gives nothing"
	leftOut      = "this is left out"
	takesAlong   = "this and the grants that name it give nothing"
)
