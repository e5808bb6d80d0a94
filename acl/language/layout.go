package language

import (
	"bytes"
	"slices"

	"github.com/tailscale/hujson"
)

// addMember appends a member to an object, as add does to a list: of a member, only what
// stands around it plays a part.
func (e *groupEdit) addMember(o *hujson.Object, name string, value hujson.ValueTrimmed) {
	l := &hujson.Array{AfterExtra: o.AfterExtra}
	for _, m := range o.Members {
		l.Elements = append(l.Elements, hujson.Value{BeforeExtra: m.Name.BeforeExtra, Value: hujson.Literal("null"), AfterExtra: m.Value.AfterExtra})
	}
	e.add(l, hujson.Literal("null"))
	for i := range o.Members {
		o.Members[i].Value.AfterExtra = l.Elements[i].AfterExtra
	}
	x := l.Elements[len(l.Elements)-1]
	o.Members = append(o.Members, hujson.ObjectMember{
		Name:  hujson.Value{BeforeExtra: x.BeforeExtra, Value: hujson.String(name)},
		Value: hujson.Value{BeforeExtra: hujson.Extra(" "), Value: value, AfterExtra: x.AfterExtra},
	})
	o.AfterExtra = l.AfterExtra
}

// add appends an element. What stands behind the last one in its line, a comment on it,
// stays there.
func (e *groupEdit) add(l *hujson.Array, lit hujson.Literal) {
	if len(l.Elements) == 0 {
		e.addFirst(l, lit)
		return
	}
	last, x := &l.Elements[len(l.Elements)-1], hujson.Value{Value: lit}
	if last.AfterExtra != nil { // a comma follows it, so one follows the new one
		x.AfterExtra = hujson.Extra{}
	}
	end := lineBreak(l.AfterExtra)
	head := l.AfterExtra // up to the end of the line, or the bracket
	if end >= 0 {
		head = bytes.TrimSuffix(l.AfterExtra[:end], []byte("\r"))
	}
	ownLine := bytes.IndexByte(last.BeforeExtra, '\n') >= 0
	switch {
	case end >= 0 && (ownLine || bytes.Contains(head, []byte("//"))):
		indent := indentOf(last.BeforeExtra)
		if !ownLine {
			indent = indentOf(l.AfterExtra) + e.unit
		}
		x.BeforeExtra = slices.Concat(head, []byte(lineEnd(l.AfterExtra, end)+indent))
		l.AfterExtra = slices.Clone(l.AfterExtra[len(head):])
	default:
		// In the same line, spaced as its neighbours are.
		space := hujson.Extra(" ")
		if len(l.Elements) > 1 && isSpace(last.BeforeExtra) && !ownLine {
			space = last.BeforeExtra
		}
		switch comment := bytes.TrimRight(head, " \t"); {
		case len(comment) == 0:
		case last.AfterExtra == nil:
			last.AfterExtra, l.AfterExtra = comment, slices.Clone(l.AfterExtra[len(comment):])
		default:
			space, l.AfterExtra = slices.Concat(comment, space), slices.Clone(l.AfterExtra[len(comment):])
		}
		x.BeforeExtra = slices.Clone(space)
	}
	l.Elements = append(l.Elements, x)
}

// addFirst puts an element into an empty list.
func (e *groupEdit) addFirst(l *hujson.Array, lit hujson.Literal) {
	x := hujson.Value{Value: lit}
	i := bytes.LastIndexByte(l.AfterExtra, '\n')
	switch {
	case i >= 0 && isSpace(l.AfterExtra[i:]): // a line of its own, one level in
		nl := lineEnd(l.AfterExtra, i)
		start := i + 1 - len(nl)
		x.BeforeExtra = slices.Concat(l.AfterExtra[:start], []byte(nl+indentOf(l.AfterExtra)+e.unit))
		x.AfterExtra = hujson.Extra{}
		l.AfterExtra = slices.Clone(l.AfterExtra[start:])
	case isSpace(l.AfterExtra):
		l.AfterExtra = nil
	default:
		x.BeforeExtra, l.AfterExtra = l.AfterExtra, nil
	}
	l.Elements = append(l.Elements, x)
}

// remove takes the element i out.
func (e *groupEdit) remove(i int) {
	l := e.list
	x := l.Elements[i]
	last := i == len(l.Elements)-1
	behind := &l.AfterExtra
	if !last {
		behind = &l.Elements[i+1].BeforeExtra
	}
	before, after := bytes.LastIndexByte(x.BeforeExtra, '\n'), lineBreak(*behind)
	switch {
	case before >= 0 && isSpace(x.BeforeExtra[before:]) && after >= 0 && bytes.IndexByte(x.AfterExtra, '\n') < 0:
		// Alone in its line, which goes.
		end := before + 1 - len(lineEnd(x.BeforeExtra, before))
		start := after + 1 - len(lineEnd(*behind, after))
		*behind = slices.Concat(x.BeforeExtra[:end], (*behind)[start:])
	case !isSpace(x.BeforeExtra) || !isSpace(x.AfterExtra) || !isSpace(*behind): // comments are kept
		*behind = slices.Concat(x.BeforeExtra, x.AfterExtra, *behind)
	case !last && (i == 0 || before >= 0):
		*behind = x.BeforeExtra // it began the list, or a line: now the next one does
	}
	if last && i > 0 {
		prev := &l.Elements[i-1]
		switch {
		case x.AfterExtra != nil && prev.AfterExtra == nil:
			prev.AfterExtra = hujson.Extra{}
		case x.AfterExtra == nil: // no comma may follow the last one
			l.AfterExtra = slices.Concat(prev.AfterExtra, l.AfterExtra)
			prev.AfterExtra = nil
		}
	}
	l.Elements = slices.Delete(l.Elements, i, i+1)
}

func isSpace(x hujson.Extra) bool { return len(bytes.TrimSpace(x)) == 0 }

// lineBreak is where the line ends that an extra begins in; -1 if it does not.
func lineBreak(x hujson.Extra) int {
	for i := 0; i < len(x); i++ {
		switch {
		case x[i] == '\n':
			return i
		case bytes.HasPrefix(x[i:], []byte("/*")):
			end := bytes.Index(x[i+2:], []byte("*/"))
			if end < 0 {
				return -1
			}
			i += 2 + end + 1
		}
	}
	return -1
}

// lineEnd is how the line ends whose line feed is at i.
func lineEnd(x hujson.Extra, i int) string {
	if i > 0 && x[i-1] == '\r' {
		return "\r\n"
	}
	return "\n"
}

// indentOf is the white space that the last line of an extra begins with.
func indentOf(x hujson.Extra) string {
	line := x[bytes.LastIndexByte(x, '\n')+1:]
	return string(line[:len(line)-len(bytes.TrimLeft(line, " \t"))])
}
