package language

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/tailscale/hujson"
)

// What an edit of a group finds.
var (
	ErrGroup    = errors.New("is there already")
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
	e.add(e.list, hujson.String(member))
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
			return nil, fmt.Errorf("%s %w of %s itself, but of a group in it (%s): take it out there", e.member, ErrNoMember, group, e.policy.Chain(group, e.member))
		}
		return nil, fmt.Errorf("%s %w of %s", e.member, ErrNoMember, group)
	}
	for _, i := range slices.Backward(e.at) {
		e.remove(i)
	}
	return e.done()
}

// AddGroup puts an empty group at the end of the "groups" of a policy's text, making that
// section at the end of the text if there is none. Every other byte stays as it is.
func AddGroup(text []byte, group string) ([]byte, error) {
	if err := checkName("group", strings.TrimPrefix(group, "group:")); err != nil || !strings.HasPrefix(group, "group:") {
		return nil, cmp.Or(err, fmt.Errorf("%q is no group: write \"group:NAME\"", Short(group)))
	}
	e, err := openText(text)
	if err != nil {
		return nil, err
	}
	if e.policy.groups[group] != nil {
		return nil, fmt.Errorf("%s %w", group, ErrGroup)
	}
	root := e.root.Value.(*hujson.Object) // Parse has seen that it is
	groups, ok := memberOf(root, "groups").(*hujson.Object)
	if !ok {
		groups = &hujson.Object{}
		e.addMember(root, "groups", groups)
	}
	e.addMember(groups, group, &hujson.Array{})
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

// openText takes a policy's text apart. An empty text is an empty policy.
func openText(text []byte) (*groupEdit, error) {
	if len(bytes.TrimSpace(text)) == 0 {
		text = []byte("{\n}\n")
	}
	p, err := Parse(text)
	if err != nil {
		return nil, err
	}
	e := &groupEdit{policy: p, unit: "\t"}
	if bytes.Contains(text, []byte("\n ")) && !bytes.Contains(text, []byte("\n\t")) {
		e.unit = "  "
	}
	e.root, err = hujson.Parse(text)
	return e, err // none after Parse
}

func openGroup(text []byte, group, member string) (*groupEdit, error) {
	e, err := openText(text)
	if err != nil {
		return nil, err
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
	if e.policy.groups[group] == nil {
		return nil, fmt.Errorf("%w: %q%s", ErrNoGroup, Short(group), orMean(group, e.policy.Groups()))
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
