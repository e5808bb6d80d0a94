package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"

	vpnv1 "vpnd/proto/vpn/v1"
)

type policyEditCmd struct{ changeFlags }

// Help is shown by --help.
func (policyEditCmd) Help() string {
	return `Your editor is $VISUAL, else $EDITOR, else vi. When it ends, the text is checked and applied as by vpnctl policy apply. If it has a fault, if somebody else was faster, or if you say no, your text stays in its file, which is named: nothing that you typed is lost.`
}

func (c *policyEditCmd) Run(ctx context.Context, a *app) error {
	now, err := a.api.policy().GetPolicy(ctx, &vpnv1.GetPolicyRequest{})
	if err != nil {
		return err
	}
	if w := now.Pending; w != nil { // before anybody types in vain
		return &exitError{exitConflict, fmt.Errorf("version %d of the policy, applied by %s, waits for a confirmation until %s: let it be confirmed (vpnctl policy confirm) or take it back (vpnctl policy rollback) first", w.Version, w.AppliedBy, absolute(w.Until.AsTime()))}
	}
	before := now.Policy.GetText()
	file, err := draft(before, now.Policy.GetVersion())
	if err != nil {
		return fmt.Errorf("make a file to edit: %w", err)
	}
	// The editor has the terminal; Ctrl-C there is the editor's affair.
	edited := a.runEditor(file)
	after, err := os.ReadFile(file)
	switch {
	case err != nil:
		return fmt.Errorf("read what you edited: %w", errors.Join(err, edited))
	case string(after) == before:
		os.Remove(file) // holds nothing of anybody's
		if edited != nil {
			return edited
		}
		return a.unchanged(now)
	case edited != nil:
		return kept(file, edited)
	case ctx.Err() != nil:
		a.notef("your text is kept in %s", file)
		return ctx.Err()
	}
	err = a.applyPolicy(ctx, file, string(after), now.Policy.GetVersion(), c.changeFlags)
	var e *exitError
	if err != nil && !(errors.As(err, &e) && e.code == exitNotClosed) { // that one is applied
		if ctx.Err() != nil {
			a.notef("your text is kept in %s", file)
		}
		return kept(file, err)
	}
	os.Remove(file)
	return err
}

// draft makes the file that is edited, for its owner alone.
func draft(text string, version uint64) (name string, err error) {
	f, err := os.CreateTemp("", fmt.Sprintf("vpnd-policy-%d-*.hujson", version))
	if err != nil {
		return "", err
	}
	_, err = f.WriteString(text)
	return f.Name(), errors.Join(err, f.Close())
}

// runEditor lets the person edit a file. The variables hold a command line, as
// "code --wait", so that the shell reads them.
func (a *app) runEditor(file string) error {
	editor := "vi"
	for _, v := range []string{"VISUAL", "EDITOR"} {
		if s := a.sys.getenv(v); s != "" {
			editor = s
			break
		}
	}
	cmd := exec.Command("/bin/sh", "-c", editor+` "$1"`, editor, file)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = a.sys.stdin, a.sys.stdout, a.sys.stderr
	if a.json {
		cmd.Stdout = a.sys.stderr // standard output is for the answer
	}
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("the editor %s failed (%w): name another in EDITOR", editor, err)
	}
	return nil
}

// kept says with an error where the person's text is, and what to do with it.
func kept(file string, err error) error {
	code, then := exitFailed, "mend it and say"
	var e *exitError
	if errors.As(err, &e) {
		code = e.code
	}
	if code == exitConflict {
		then = "put it together with what is in force now (vpnctl policy show) before you say"
	}
	return &exitError{code, fmt.Errorf("%w; your text is kept in %s: %s vpnctl policy apply %s", err, file, then, quote(file))}
}
