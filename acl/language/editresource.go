package language

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/tailscale/hujson"
)

// What an edit of a resource finds.
var (
	ErrResource   = errors.New("is there already")
	ErrNoResource = errors.New("no such resource")
)

// NewResource is a resource as AddResource writes it.
type NewResource struct {
	Name    string
	To      string
	Ports   []string
	Port    uint16
	Title   string
	Note    string
	Proxy   bool
	Gateway bool     // "from": "gateway"
	Sources []string // of a grant that leads to it; none: no grant
	MFA     string   // of that grant; "" for the session's
}

// AddResource puts a resource at the end of the "resources" of a policy's text, and a grant of
// it at the end of the "grants", making the sections at the end of the text if there are none.
// Every other byte stays as it is.
func AddResource(text []byte, r NewResource) ([]byte, error) {
	if err := checkName("resource", r.Name); err != nil {
		return nil, err
	}
	e, err := openText(text)
	if err != nil {
		return nil, err
	}
	if e.policy.resources[r.Name] != nil {
		return nil, fmt.Errorf("the resource %s %w: take it out first (vpnctl resource rm %s), or change it with vpnctl policy edit", r.Name, ErrResource, r.Name)
	}
	root := e.root.Value.(*hujson.Object) // Parse has seen that it is
	resources, ok := memberOf(root, "resources").(*hujson.Object)
	if !ok {
		resources = &hujson.Object{}
		e.addMember(root, "resources", resources)
	}
	value, err := hujson.Parse([]byte(r.text()))
	if err != nil {
		return nil, err
	}
	e.addMember(resources, r.Name, value.Value)
	if len(r.Sources) > 0 {
		grants, ok := memberOf(root, "grants").(*hujson.Array)
		if !ok {
			grants = &hujson.Array{}
			e.addMember(root, "grants", grants)
		}
		e.add(grants, hujson.Literal(r.grant()))
	}
	return e.done()
}

// text is the resource's object, in one line.
func (r *NewResource) text() string {
	parts := []string{`"to": ` + quoted(r.To)}
	if len(r.Ports) > 0 {
		parts = append(parts, `"ports": `+quotedList(r.Ports))
	}
	if r.Port != 0 {
		parts = append(parts, fmt.Sprintf(`"port": %d`, r.Port))
	}
	for _, x := range []struct{ key, value string }{{"title", r.Title}, {"note", r.Note}} {
		if x.value != "" {
			parts = append(parts, quoted(x.key)+": "+quoted(x.value))
		}
	}
	if r.Proxy {
		parts = append(parts, `"proxy": "v2"`)
	}
	if r.Gateway {
		parts = append(parts, `"from": "gateway"`)
	}
	return "{" + strings.Join(parts, ", ") + "}"
}

func (r *NewResource) grant() string {
	s := `{"src": ` + quotedList(r.Sources) + `, "dst": [` + quoted(r.Name) + `]`
	if r.MFA != "" {
		s += `, "mfa": ` + quoted(r.MFA)
	}
	return s + "}"
}

func quoted(s string) string {
	var b strings.Builder
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	enc.Encode(s) // a string cannot fail
	return strings.TrimSuffix(b.String(), "\n")
}

func quotedList(list []string) string {
	out := make([]string, len(list))
	for i, s := range list {
		out[i] = quoted(s)
	}
	return "[" + strings.Join(out, ", ") + "]"
}

// RemoveResource takes a resource out of a policy's text, and with it out of the grants that
// lead to it; a grant that leads nowhere else goes as a whole. Every other byte stays as it is.
func RemoveResource(text []byte, name string) ([]byte, error) {
	e, err := openText(text)
	if err != nil {
		return nil, err
	}
	if e.policy.resources[name] == nil {
		return nil, fmt.Errorf("%w: %q%s", ErrNoResource, Short(name), orMean(name, e.policy.Resources()))
	}
	root := e.root.Value.(*hujson.Object)
	e.removeMember(memberOf(root, "resources").(*hujson.Object), name)
	for section, bare := range map[string]bool{"grants": true, "acls": false} {
		grants, ok := memberOf(root, section).(*hujson.Array)
		if !ok {
			continue
		}
		for i := len(grants.Elements) - 1; i >= 0; i-- {
			dst, ok := memberOf(grants.Elements[i].Value, "dst").(*hujson.Array)
			if !ok {
				continue
			}
			for j := len(dst.Elements) - 1; j >= 0; j-- {
				s := stringOf(&dst.Elements[j])
				if s == name || !bare && strings.HasPrefix(s, name+":") {
					if len(dst.Elements) > 1 {
						e.list = dst
						e.remove(j)
						continue
					}
					e.list = grants
					e.remove(i)
				}
			}
		}
	}
	return e.done()
}

// removeMember takes a member out of an object, as remove does with an element of a list.
func (e *groupEdit) removeMember(o *hujson.Object, name string) {
	l := &hujson.Array{AfterExtra: o.AfterExtra}
	at := -1
	for i, m := range o.Members {
		if stringOf(&m.Name) == name {
			at = i
		}
		l.Elements = append(l.Elements, hujson.Value{BeforeExtra: m.Name.BeforeExtra, Value: hujson.Literal("null"), AfterExtra: m.Value.AfterExtra})
	}
	e.list = l
	e.remove(at)
	o.Members = append(o.Members[:at:at], o.Members[at+1:]...)
	for i := range o.Members {
		o.Members[i].Name.BeforeExtra, o.Members[i].Value.AfterExtra = l.Elements[i].BeforeExtra, l.Elements[i].AfterExtra
	}
	o.AfterExtra = l.AfterExtra
}
