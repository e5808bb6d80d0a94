package language

import (
	"bytes"
	"maps"
	"slices"

	"github.com/tailscale/hujson"
)

// edit is a text instead of another one, from which it differs between two offsets
// inside of a group's list.
type edit struct {
	group     string
	old, text *source
	list      TextRange // the group's list in text
	delta     int       // by how much what follows has moved

	was, is [2]int // line and column of the end of what differs, in old and in text
}

// Regroup is the policy of a text that differs from p's own in the people of one group
// alone: its cost is that of comparing the texts. The users are those whose groups have
// changed, and moved says where in the new text a line and column of the old one are. ok is false for
// any other text, also one with a fault.
func (p *Policy) Regroup(text []byte) (next *Policy, users []string, moved func(line, column int) (int, int), ok bool) {
	e, ok := p.findEdit(text)
	if !ok || len(p.ignored) > 0 {
		return nil, nil, nil, false
	}
	next, users, ok = p.regroup(e)
	return next, users, e.moved, ok
}

// findEdit finds what differs between the policy's text and another one.
func (p *Policy) findEdit(text []byte) (*edit, bool) {
	old := p.src.text
	head := commonHead(old, text)
	tail := commonTail(old[head:], text[head:])
	if len(text) > MaxText {
		return nil, false
	}
	for name, g := range p.groups {
		// Both brackets of the list are in what the texts have in common, so the list is
		// one in both, if it reads as one.
		if g.list.Start >= head || len(old)-tail >= g.list.end {
			continue
		}
		e := &edit{group: name, old: p.src, delta: len(text) - len(old)}
		e.list = TextRange{g.list.Start, g.list.end + e.delta}
		e.text = p.src.replace(text, head, len(old)-tail, len(text)-tail)
		e.was[0], e.was[1] = e.old.position(len(old) - tail)
		e.is[0], e.is[1] = e.text.position(len(text) - tail)
		return e, true
	}
	return nil, false
}

// moved is where in the new text a line and column of the old one are; they are not inside of what differs.
func (e *edit) moved(line, column int) (int, int) {
	switch {
	case line > e.was[0]:
		return line + e.is[0] - e.was[0], column
	case line == e.was[0] && column >= e.was[1]:
		return e.is[0], column + e.is[1] - e.was[1]
	default:
		return line, column
	}
}

// replace is the source of a text that differs from s between start and end, which is now
// newEnd.
func (s *source) replace(text []byte, start, end, newEnd int) *source {
	first, _ := s.position(start)
	last, _ := s.position(end)
	n := &source{text: text, lines: slices.Grow(slices.Clone(s.lines[:first]), len(s.lines))}
	for i := start; i < newEnd; i++ {
		if text[i] == '\n' {
			n.lines = append(n.lines, i+1)
		}
	}
	for _, at := range s.lines[last:] {
		n.lines = append(n.lines, at+newEnd-end)
	}
	return n
}

// regroup gives the group that was edited its new people. What the policy says else it
// shares with p; the text ranges of that are those of the text it was read from.
func (p *Policy) regroup(e *edit) (next *Policy, users []string, ok bool) {
	was := p.groups[e.group]
	oldList, newList := p.src.text[was.list.Start:was.list.end], e.text.text[e.list.Start:e.list.end]
	oldValues, _, _ := measure(oldList, MaxValues)
	newValues, _, why := measure(newList, MaxValues)
	n := *p
	n.src, n.values = e.text, p.values-oldValues+newValues
	if why != "" || n.values > MaxValues {
		return nil, nil, false
	}
	v, err := hujson.Parse(newList)
	if err != nil || v.Value.Kind() != '[' || v.StartOffset != 0 || v.EndOffset != len(newList) {
		return nil, nil, false
	}
	d := &decoder{Faults: Faults{src: newSource(newList)}}
	g := d.group(&v)
	g.at, g.flat = was.at, was.flat
	if len(d.List) > 0 || !slices.EqualFunc(g.groups, was.groups, func(a, b member) bool { return a.name == b.name }) {
		return nil, nil, false
	}
	n.groups = make(map[string]*group, len(p.groups))
	for name, x := range p.groups {
		y := *x
		if y.list.Start >= was.list.Start {
			y.list.end += e.delta
			if y.list.Start > was.list.Start {
				y.list.Start += e.delta
			}
		}
		n.groups[name] = &y
	}
	g.list = n.groups[e.group].list
	n.groups[e.group] = g
	changed := map[string]bool{}
	n.reflatten(e.group, changed)
	if n.members() > MaxMembers {
		return nil, nil, false
	}
	return &n, slices.Sorted(maps.Keys(changed)), true
}

// reflatten gathers the people of a group anew, and, if they are others, of those that it
// is nested in. changed collects them.
func (p *Policy) reflatten(name string, changed map[string]bool) {
	g := p.groups[name]
	old := g.flat
	g.flat = p.gather(g)
	for _, u := range difference(g.flat, old) {
		list, _ := p.groupsOf.Get([]byte(u))
		at, _ := slices.BinarySearch(list, name)
		p.groupsOf = p.groupsOf.With(u, slices.Insert(slices.Clone(list), at, name))
		changed[u] = true
	}
	for _, u := range difference(old, g.flat) {
		list, _ := p.groupsOf.Get([]byte(u))
		p.groupsOf = p.groupsOf.With(u, slices.DeleteFunc(slices.Clone(list), func(s string) bool { return s == name }))
		changed[u] = true
	}
	if slices.Equal(g.flat, old) {
		return
	}
	for outer, x := range p.groups {
		if slices.ContainsFunc(x.groups, func(m member) bool { return m.name == name }) {
			p.reflatten(outer, changed)
		}
	}
}

// difference is what is in sorted a and not in sorted b.
func difference(a, b []string) []string {
	var out []string
	for _, s := range a {
		if _, in := slices.BinarySearch(b, s); !in {
			out = append(out, s)
		}
	}
	return out
}

// commonHead is how many bytes two texts have in common at their beginning.
func commonHead(a, b []byte) int {
	const step = 4 << 10
	n, i := min(len(a), len(b)), 0
	for i+step <= n && bytes.Equal(a[i:i+step], b[i:i+step]) {
		i += step
	}
	for i < n && a[i] == b[i] {
		i++
	}
	return i
}

// commonTail is how many bytes two texts have in common at their end.
func commonTail(a, b []byte) int {
	const step = 4 << 10
	n, i := min(len(a), len(b)), 0
	for i+step <= n && bytes.Equal(a[len(a)-i-step:len(a)-i], b[len(b)-i-step:len(b)-i]) {
		i += step
	}
	for i < n && a[len(a)-1-i] == b[len(b)-1-i] {
		i++
	}
	return i
}
