package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"vpnd/acl/language"
	vpnv1 "vpnd/proto/vpn/v1"
)

type groupCmd struct {
	Ls  groupLsCmd  `cmd:"" help:"List the groups of the policy." aliases:"list"`
	Add groupAddCmd `cmd:"" help:"Put people into a group."`
	Rm  groupRmCmd  `cmd:"" help:"Take people out of a group." aliases:"remove"`
}

type groupLsCmd struct {
	Group string `arg:"" optional:"" help:"Which; all by default." predictor:"group"`
}

func (c *groupLsCmd) Run(ctx context.Context, a *app) error {
	r, err := a.api.policy().ListGroups(ctx, &vpnv1.ListGroupsRequest{Name: c.Group})
	if err != nil {
		return err
	}
	if a.json {
		return a.printJSON(r)
	}
	if len(r.Groups) == 0 {
		a.notef("the policy has no groups: define one in \"groups\" (vpnctl policy edit)")
		return nil
	}
	t := newTable("GROUP", "MEMBERS", "USERS IN ALL")
	for _, g := range r.Groups {
		all := ""
		if len(g.Users) != len(g.Members) || strings.Contains(joined(g.Members), "group:") {
			all = joined(g.Users)
		}
		t.add(cell{g.Name, bold}, text(joined(g.Members)), text(all))
	}
	t.draw(a.ui)
	return nil
}

// groupEdit is what the commands that edit a group take.
type groupEdit struct {
	Group string   `arg:"" help:"The group, with or without \"group:\" in front." predictor:"group"`
	Users []string `arg:"" name:"user" help:"Users, or groups as group:NAME." predictor:"user"`
	Base  uint64   `help:"The version of the policy that you looked at; another one in force refuses the change." placeholder:"VERSION"`
	changeFlags
}

const groupHelp = `The group stands in the policy, and is edited there: comments and layout stay as they are. It shows who gains or loses what by it, and asks, as vpnctl policy apply does.`

type groupAddCmd struct {
	groupEdit
	New bool `help:"Make the group if there is none of this name."`
}

// Help is shown by --help.
func (groupAddCmd) Help() string { return groupHelp }

func (c *groupAddCmd) Run(ctx context.Context, a *app) error {
	return c.run(ctx, a, "add", "to", c.add)
}

// add is language.AddMember, for which it is no error that there is nothing to do.
func (c *groupAddCmd) add(a *app, policy []byte, group, member string) ([]byte, error) {
	next, err := language.AddMember(policy, group, member)
	if errors.Is(err, language.ErrNoGroup) && c.New {
		if policy, err = language.AddGroup(policy, group); err == nil {
			next, err = language.AddMember(policy, group, member)
		}
	}
	if errors.Is(err, language.ErrNoGroup) {
		return nil, fmt.Errorf("%w; --new makes it", err)
	}
	if errors.Is(err, language.ErrMember) {
		a.notef("%v", err)
		return policy, nil
	}
	return next, err
}

type groupRmCmd struct{ groupEdit }

// Help is shown by --help.
func (groupRmCmd) Help() string {
	return groupHelp + ` With a member that has a line for itself, the comment behind it goes too.`
}

func (c *groupRmCmd) Run(ctx context.Context, a *app) error {
	return c.run(ctx, a, "remove", "from", func(_ *app, policy []byte, group, member string) ([]byte, error) {
		return language.RemoveMember(policy, group, member)
	})
}

// groupTries is how often an edit is made anew when somebody else's change came between.
const groupTries = 5

// run edits the group in the policy in force. Lost to somebody else's change, the edit is
// made again from the newer text, unless somebody was asked: he agreed to another change.
func (c *groupEdit) run(ctx context.Context, a *app, verb, preposition string, edit func(*app, []byte, string, string) ([]byte, error)) error {
	group := "group:" + strings.TrimPrefix(c.Group, "group:")
	if c.Note == "" {
		c.Note = fmt.Sprintf("%s %s %s %s", verb, joined(c.Users), preposition, group)
	}
	for try := 1; ; try++ {
		now, err := a.api.policy().GetPolicy(ctx, &vpnv1.GetPolicyRequest{})
		if err != nil {
			return err
		}
		before, base := now.Policy.GetText(), now.Policy.GetVersion()
		if c.Base != 0 {
			base = c.Base
		}
		policy := []byte(before)
		for _, u := range c.Users {
			policy, err = edit(a, policy, group, u)
			if errors.Is(err, language.ErrNoGroup) || errors.Is(err, language.ErrNoMember) {
				return &exitError{exitNotFound, err}
			}
			if err != nil {
				return fmt.Errorf("edit %s: %w", group, err)
			}
		}
		if string(policy) == before {
			return a.unchanged(now)
		}
		err = a.applyPolicy(ctx, "policy", string(policy), base, c.changeFlags)
		var e *exitError
		lost := errors.As(err, &e) && e.code == exitConflict && now.Pending == nil
		if !lost || c.Base != 0 || a.asks(c.changeFlags) || try == groupTries {
			return err
		}
	}
}
