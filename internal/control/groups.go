package control

import (
	"strings"

	"vpnd/acl/language"
)

// Group is a group of the policy.
type Group struct {
	Name    string   // "group:ops"
	Members []string // users and groups, as the policy lists them
	Users   []string // all, those of nested groups too
}

// Groups returns a group of the policy in force ("ops" or "group:ops"), or all.
func (s *Service) Groups(name string) ([]Group, error) {
	p := language.ParseStored([]byte(s.View().Policy().Text))
	names := p.Groups()
	if name != "" {
		name = "group:" + strings.TrimPrefix(name, "group:")
		names = []string{name}
	}
	var out []Group
	for _, n := range names {
		users, ok := p.Members(n)
		if !ok {
			return nil, Refuse("no_group", n)
		}
		out = append(out, Group{Name: n, Members: p.Listed(n), Users: users})
	}
	return out, nil
}
