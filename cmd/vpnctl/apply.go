package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	vpnv1 "vpnd/proto/vpn/v1"
)

// changeFlags are those of every command that makes a new version of the policy.
type changeFlags struct {
	Note    string        `short:"m" help:"Why, for the history." placeholder:"TEXT"`
	Confirm time.Duration `help:"Take it back after so long, as 60s, unless vpnctl policy confirm follows." placeholder:"DURATION"`
	Yes     bool          `short:"y" help:"Do not ask."`
}

type policyApplyCmd struct {
	policyFile
	Base uint64 `help:"The version that the file was made from; another one in force refuses it. By default the one in force now." placeholder:"VERSION"`
	changeFlags
}

// Help is shown by --help.
func (policyApplyCmd) Help() string {
	return `It shows who gains and who loses what, and asks before it applies it if standard input is a terminal; in a script or a pipeline, where it is none, it does not ask. --yes never asks. With --confirm 60s nobody locks himself out: unless you say vpnctl policy confirm within that time, the former version comes back, even if vpnd was restarted meanwhile.`
}

func (c *policyApplyCmd) Run(ctx context.Context, a *app) error {
	policy, err := c.read(a)
	if err != nil {
		return err
	}
	return a.applyPolicy(ctx, c.File, policy, c.Base, c.changeFlags)
}

// asks says whether a change of the policy is asked about.
func (a *app) asks(f changeFlags) bool { return a.inTTY && !f.Yes }

// applyPolicy makes a text the policy: it shows what changes, and asks where somebody is
// there to answer. With base 0 it is made from the version in force.
func (a *app) applyPolicy(ctx context.Context, file, policy string, base uint64, f changeFlags) error {
	return a.applyPolicyWith(ctx, file, policy, base, f, nil)
}

// applyPolicyWith is applyPolicy of a text whose resources may name these targets on the
// gateway's own host from then on.
func (a *app) applyPolicyWith(ctx context.Context, file, policy string, base uint64, f changeFlags, local []string) error {
	now, err := a.api.policy().GetPolicy(ctx, &vpnv1.GetPolicyRequest{})
	if err != nil {
		return err
	}
	if base == 0 {
		base = now.Policy.GetVersion()
	}
	req := &vpnv1.ApplyPolicyRequest{Text: policy, Base: base, Note: f.Note, LocalTargets: local}
	if f.Confirm != 0 {
		req.Confirm = durationpb.New(f.Confirm)
	}
	// What vpnd will refuse needs no question.
	review := base == now.Policy.GetVersion() && now.Pending == nil && (!a.json || a.asks(f))
	if review {
		if err := a.reviewPolicy(ctx, file, req, f); err != nil {
			return err
		}
	}
	r, err := a.api.policy().ApplyPolicy(ctx, req)
	if err != nil {
		return err
	}
	if a.json {
		err = a.printJSON(r)
	} else if !review || r.Policy == nil {
		a.problems(file, r.Problems)
	}
	if err != nil {
		return err
	}
	if r.Policy == nil {
		return notApplied(file, r.Problems, base)
	}
	if on := doneOn(r.Closed); on != "" && !a.json {
		a.printf("Version %d is in force on %s.\n", r.Policy.Version, on)
	}
	if w := r.Pending; w != nil && !a.json {
		a.printf("Version %d comes back in %s unless you say: vpnctl policy confirm\n", w.Back, length(f.Confirm))
	}
	return a.closed(r.Closed)
}

// reviewPolicy shows what a text changes, and asks.
func (a *app) reviewPolicy(ctx context.Context, file string, req *vpnv1.ApplyPolicyRequest, f changeFlags) error {
	r, err := a.api.policy().DiffPolicy(ctx, &vpnv1.DiffPolicyRequest{Text: req.Text, Base: req.Base})
	if err != nil {
		return err
	}
	a.problems(file, r.Problems)
	if r.Diff == nil {
		return notApplied(file, r.Problems, req.Base)
	}
	if a.json { // standard output is for the answer
		fmt.Fprint(a.err, diffText(r.Diff, func(_, s string) string { return s }))
	} else {
		a.write(diffText(r.Diff, a.paint))
	}
	return a.confirm(ctx, !a.asks(f), "apply it?")
}

// unchanged answers an edit that leaves the policy as it is.
func (a *app) unchanged(now *vpnv1.GetPolicyResponse) error {
	a.notef("nothing was changed")
	if a.json {
		return a.printJSON(&vpnv1.ApplyPolicyResponse{Policy: now.Policy})
	}
	return nil
}

func notApplied(file string, problems []*vpnv1.Problem, base uint64) error {
	return fmt.Errorf("%s has %s and was not applied; version %d stays in force", file, number(faults(problems), "fault"), base)
}

type policyConfirmCmd struct{}

// Help is shown by --help.
func (policyConfirmCmd) Help() string {
	return `Only who applied it can confirm it: the point is to prove that he still can. To take it back at once, anybody says vpnctl policy rollback without a version.`
}

func (c *policyConfirmCmd) Run(ctx context.Context, a *app) error {
	r, err := a.api.policy().ConfirmPolicy(ctx, &vpnv1.ConfirmPolicyRequest{})
	if err != nil {
		return err
	}
	if a.json {
		return a.printJSON(r)
	}
	a.printf("Version %d stays in force.\n", r.Policy.GetVersion())
	return nil
}

type policyRollbackCmd struct {
	Version *uint64 `arg:"" optional:"" help:"Which to apply again; without it, what waits for a confirmation is taken back at once."`
	changeFlags
}

// Help is shown by --help.
func (policyRollbackCmd) Help() string {
	return `The old text becomes a new version, so that the history keeps both. It shows what changes and asks as vpnctl policy apply does.`
}

func (c *policyRollbackCmd) Run(ctx context.Context, a *app) error {
	if c.Version == nil {
		if c.Note != "" || c.Confirm != 0 {
			return usagef("policy rollback: --note and --confirm go with a version (vpnctl policy history)")
		}
		return a.revertPolicy(ctx)
	}
	if *c.Version == 0 {
		return usagef("policy rollback: versions begin at 1 (vpnctl policy history)")
	}
	old, err := a.api.policy().GetPolicy(ctx, &vpnv1.GetPolicyRequest{Version: *c.Version})
	if err != nil {
		return err
	}
	if c.Note == "" {
		c.Note = fmt.Sprintf("version %d again", *c.Version)
	}
	return a.applyPolicy(ctx, fmt.Sprintf("version %d", *c.Version), old.Policy.GetText(), 0, c.changeFlags)
}

// revertPolicy takes back what waits for a confirmation.
func (a *app) revertPolicy(ctx context.Context) error {
	r, err := a.api.policy().RevertPolicy(ctx, &vpnv1.RevertPolicyRequest{})
	var e *exitError
	if errors.As(err, &e) && e.code == exitNotFound {
		return &exitError{exitNotFound, fmt.Errorf("no policy waits for a confirmation: to go back to an older version, name it (vpnctl policy history)")}
	}
	if err != nil {
		return err
	}
	if a.json {
		err = a.printJSON(r)
	} else if on := doneOn(r.Closed); on != "" {
		a.printf("Version %d is in force on %s: %s\n", r.Policy.GetVersion(), on, r.Policy.GetNote())
	}
	if err != nil {
		return err
	}
	return a.closed(r.Closed)
}
