package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"strings"
	"time"

	"vpnd/acl/language"
	"vpnd/acl/review"
	"vpnd/acl/rules"
	vpnv1 "vpnd/proto/vpn/v1"
)

type policyCmd struct {
	Show     policyShowCmd     `cmd:"" help:"Print the policy in force, or an older version."`
	Check    policyCheckCmd    `cmd:"" help:"Look for faults in a file without applying it."`
	Diff     policyDiffCmd     `cmd:"" help:"Tell who would gain and who would lose what by a file."`
	Explain  policyExplainCmd  `cmd:"" help:"Tell whether a flow may pass now, and why."`
	Apply    policyApplyCmd    `cmd:"" help:"Make a file the policy."`
	Edit     policyEditCmd     `cmd:"" help:"Edit the policy in force in your editor."`
	Confirm  policyConfirmCmd  `cmd:"" help:"Keep a policy that was applied with --confirm."`
	History  policyHistoryCmd  `cmd:"" help:"List the versions, newest first."`
	Rollback policyRollbackCmd `cmd:"" help:"Apply an older version again."`
}

type policyShowCmd struct {
	Version uint64 `arg:"" optional:"" help:"Which; the one in force by default."`
}

func (c *policyShowCmd) Run(ctx context.Context, a *app) error {
	r, err := a.api.policy().GetPolicy(ctx, &vpnv1.GetPolicyRequest{Version: c.Version})
	if err != nil {
		return err
	}
	if a.json {
		return a.printJSON(r)
	}
	policy := r.Policy.GetText()
	if a.outTTY { // a file gets every byte
		policy = cleanText(policy)
	}
	a.write(policy)
	return nil
}

// policyFile is the argument of commands that read one.
type policyFile struct {
	File string `arg:"" help:"The policy's file; - is standard input." predictor:"file"`
}

func (f policyFile) read(a *app) (string, error) {
	const most = 16 << 20 // bytes; the daemon's own limit is far below
	in := a.in
	if f.File != "-" {
		file, err := os.Open(f.File)
		if err != nil {
			return "", fmt.Errorf("read the policy: %w", err)
		}
		defer file.Close()
		in = file
	}
	b, err := io.ReadAll(io.LimitReader(in, most+1))
	if err != nil {
		return "", fmt.Errorf("read the policy: %w", err)
	}
	if len(b) > most {
		return "", fmt.Errorf("%s is larger than 16 MiB: that is no policy", f.File)
	}
	return string(b), nil
}

type policyCheckCmd struct{ policyFile }

func (c *policyCheckCmd) Run(ctx context.Context, a *app) error {
	policy, err := c.read(a)
	if err != nil {
		return err
	}
	r, err := a.api.policy().CheckPolicy(ctx, &vpnv1.CheckPolicyRequest{Text: policy})
	var e *exitError
	if errors.As(err, &e) && e.code == exitUnreachable {
		a.notef("vpnd cannot be reached at %s: only the file itself is looked at, and its tests are run as if nobody had enrolled yet", a.api.path)
		r, err = parsePolicy(policy)
	}
	if err != nil {
		return err
	}
	if a.json {
		if err := a.printJSON(r); err != nil {
			return err
		}
	} else {
		a.problems(c.File, r.Problems)
	}
	if n := faults(r.Problems); n > 0 {
		return fmt.Errorf("%s has %s", c.File, number(n, "fault"))
	}
	if !a.json {
		a.printf("%s has no faults.\n", c.File)
	}
	return nil
}

// alone stands in for what only a daemon knows of its cluster: the network by default, and
// the longest session, so that no freshness is called too long here.
var alone = rules.Options{
	Network: []netip.Prefix{netip.MustParsePrefix("10.77.0.0/16"), netip.MustParsePrefix("fd00::/64")},
	Gateway: []netip.Addr{netip.MustParseAddr("10.77.0.1"), netip.MustParseAddr("fd00::1")},
	Session: 31 * 24 * time.Hour,
}

// parsePolicy looks for the faults that a text has by itself.
func parsePolicy(policy string) (*vpnv1.CheckPolicyResponse, error) {
	r := &vpnv1.CheckPolicyResponse{}
	var list language.ErrorList
	p, err := language.Parse([]byte(policy))
	if err == nil {
		_, list = review.Check(p, alone, nil)
	}
	if err != nil && !errors.As(err, &list) {
		return nil, err
	}
	for _, f := range list {
		r.Problems = append(r.Problems, &vpnv1.Problem{Line: int32(f.Line), Column: int32(f.Column), Message: f.Message, Warning: f.Warning, Code: string(f.Code)})
	}
	return r, nil
}

// problems prints faults and warnings as compilers do.
func (a *app) problems(file string, list []*vpnv1.Problem) {
	for _, p := range list {
		kind := ""
		if p.Warning {
			kind = "warning: "
		}
		fmt.Fprintf(a.err, "%s:%d:%d: %s%s\n", clean(file), p.Line, p.Column, kind, clean(p.Message))
	}
}

func faults(list []*vpnv1.Problem) (n int) {
	for _, p := range list {
		if !p.Warning {
			n++
		}
	}
	return n
}

type policyHistoryCmd struct{}

func (c *policyHistoryCmd) Run(ctx context.Context, a *app) error {
	r, err := a.api.policy().ListPolicies(ctx, &vpnv1.ListPoliciesRequest{})
	if err != nil {
		return err
	}
	if a.json {
		return a.printJSON(r)
	}
	t := newTable("VERSION", "APPLIED", "BY", "NOTE")
	for i, p := range r.Policies {
		version := cell{fmt.Sprint(p.Version), plain}
		if i == 0 {
			version.style = good
		}
		note := p.Note
		if w := r.Pending; w != nil && w.Version == p.Version {
			version.style = warn
			note = strings.TrimPrefix(note+"; ", "; ") + fmt.Sprintf("to be confirmed until %s, else version %d comes back", absolute(w.Until.AsTime()), w.Back)
		}
		t.add(version, text(a.when(p.AppliedAt)), text(p.AppliedBy), text(note))
	}
	t.draw(a.ui)
	return nil
}
