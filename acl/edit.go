package acl

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/tailscale/hujson"
)

// What an edit of a group finds.
var (
	ErrNoGroup  = errors.New("no such group")
	ErrMember   = errors.New("is a member already")
	ErrNoMember = errors.New("is no member")
)

// AddMember puts a user, or a group, at the end of a group ("group:ops") of a policy's
// text. Every other byte stays as it is; the new entry is laid out as its neighbours are.
func AddMember(text []byte, group, member string) ([]byte, error) {
	e, err := openGroup(text, group, member)
	if err != nil {
		return nil, err
	}
	if len(e.at) > 0 {
		return nil, fmt.Errorf("%s %w of %s", e.member, ErrMember, group)
	}
	e.add(hujson.String(member))
	return e.done()
}

// RemoveMember takes a user, or a group, out of a group of a policy's text. With an entry
// that has a line for itself, the line goes, and the comment behind the entry with it.
// Every other byte stays as it is.
func RemoveMember(text []byte, group, member string) ([]byte, error) {
	e, err := openGroup(text, group, member)
	if err != nil {
		return nil, err
	}
	if len(e.at) == 0 {
		if _, in := slices.BinarySearch(e.policy.groups[group].flat, e.member); in {
			return nil, fmt.Errorf("%s %w of %s itself, but of a group in it (%s): take it out there", e.member, ErrNoMember, group, e.policy.chain(group, e.member))
		}
		return nil, fmt.Errorf("%s %w of %s", e.member, ErrNoMember, group)
	}
	for _, i := range slices.Backward(e.at) {
		e.remove(i)
	}
	return e.done()
}

// groupEdit is a change of one group under way.
type groupEdit struct {
	policy *Policy
	root   hujson.Value
	list   *hujson.Array
	unit   string // what a level is indented by
	member string // as the policy is looked up by
	at     []int  // where it stands in list
}

func openGroup(text []byte, group, member string) (*groupEdit, error) {
	p, err := Parse(text)
	if err != nil {
		return nil, err
	}
	e := &groupEdit{policy: p, unit: "\t"}
	if bytes.Contains(text, []byte("\n ")) && !bytes.Contains(text, []byte("\n\t")) {
		e.unit = "  "
	}
	if strings.HasPrefix(member, "group:") {
		err = checkName("group", member[len("group:"):])
		e.member = member
	} else {
		e.member, err = parseUser(member)
	}
	if err != nil {
		return nil, err
	}
	if p.groups[group] == nil {
		return nil, fmt.Errorf("%w %q: define it in \"groups\" (vpnctl policy edit)%s", ErrNoGroup, short(group), orMean(group, p.Groups()))
	}
	if e.root, err = hujson.Parse(text); err != nil {
		return nil, err // not after Parse
	}
	// Parse has seen that these are here once, and of these forms.
	e.list = memberOf(memberOf(e.root.Value, "groups"), group).(*hujson.Array)
	for i := range e.list.Elements {
		s := stringOf(&e.list.Elements[i])
		if user, err := parseUser(s); err == nil {
			s = user
		}
		if s == e.member {
			e.at = append(e.at, i)
		}
	}
	return e, nil
}

func memberOf(v hujson.ValueTrimmed, name string) hujson.ValueTrimmed {
	o, ok := v.(*hujson.Object)
	if !ok {
		return nil
	}
	for i := range o.Members {
		if stringOf(&o.Members[i].Name) == name {
			return o.Members[i].Value.Value
		}
	}
	return nil
}

// done gives the text, which must be a policy still: an edit may nest groups in a circle.
func (e *groupEdit) done() ([]byte, error) {
	text := e.root.Pack()
	if _, err := Parse(text); err != nil {
		return nil, err
	}
	return text, nil
}

// add appends an element. What stands behind the last one in its line, a comment on it,
// stays there.
func (e *groupEdit) add(lit hujson.Literal) {
	l := e.list
	if len(l.Elements) == 0 {
		e.addFirst(lit)
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
func (e *groupEdit) addFirst(lit hujson.Literal) {
	l := e.list
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
