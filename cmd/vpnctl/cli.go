package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"reflect"
	"time"

	"github.com/alecthomas/kong"
)

const description = `Administer a vpnd gateway: people, devices, sessions and the policy.

vpnctl speaks to the daemon on this host by its unix socket; the daemon takes commands
from root and from its own user.`

// cli is the grammar. Each noun has a file of its own.
type cli struct {
	Socket  string      `help:"The daemon's socket; also by $VPNCTL_SOCKET." placeholder:"PATH" predictor:"file"`
	Output  string      `short:"o" help:"Print text or json; also by $VPNCTL_OUTPUT." placeholder:"FORMAT" predictor:"format"`
	Version versionFlag `help:"Print the version and exit."`

	User       userCmd       `cmd:"" help:"People and their invitations."`
	Device     deviceCmd     `cmd:"" help:"WireGuard keys and their configs."`
	Session    sessionCmd    `cmd:"" help:"Who is signed in."`
	Policy     policyCmd     `cmd:"" help:"Who may reach what."`
	Resource   resourceCmd   `cmd:"" help:"What is published: things with an address of their own inside of the tunnel."`
	Group      groupCmd      `cmd:"" help:"The groups of the policy."`
	Settings   settingsCmd   `cmd:"" help:"What the whole gateway has in common."`
	Status     statusCmd     `cmd:"" help:"What the gateway is and how it does."`
	Doctor     doctorCmd     `cmd:"" help:"What is in the way, and what to do about it."`
	Whois      whoisCmd      `cmd:"" help:"Whose tunnel address this is."`
	Audit      auditCmd      `cmd:"" help:"What was done, by whom."`
	Time       timeCmd       `cmd:"" help:"Mend a clock that ran backwards."`
	Completion completionCmd `cmd:"" help:"Print the line that gives your shell completion."`
	Man        manCmd        `cmd:"" help:"Print the manual page."`
	Greet      greetCmd      `cmd:"" hidden:"" help:"What the package says when it was installed."`
}

// Exit codes, for scripts.
const (
	exitOK          = 0
	exitFailed      = 1   // vpnd refused, or something failed
	exitUsage       = 2   // the command line is wrong; nothing was done
	exitNotFound    = 3   // no such user, device, session, group, version
	exitUnreachable = 4   // vpnd does not answer at its socket
	exitNotClosed   = 5   // done, but a gateway has not confirmed that it is closed
	exitConflict    = 6   // somebody else's change is in the way; nothing was done
	exitDisagree    = 7   // policy explain: policy and data plane say different things
	exitInterrupted = 130 // by SIGINT, as shells have it
)

var exitCodes = []struct {
	code    int
	meaning string
}{
	{exitOK, "Done."},
	{exitFailed, "vpnd refused, or something failed."},
	{exitUsage, "The command line is wrong, or a question could not be asked; nothing was done."},
	{exitNotFound, "There is no such user, device, session, address, group or version."},
	{exitUnreachable, "vpnd does not answer at its socket."},
	{exitNotClosed, "Done and recorded, but a gateway has not confirmed yet that it is closed."},
	{exitConflict, "Somebody else changed the policy meanwhile, or his change waits for a confirmation; nothing was done."},
	{exitDisagree, "The policy and the data plane say different things of a flow (policy explain)."},
	{exitInterrupted, "Interrupted."},
}

// exitError is an error with an exit code of its own.
type exitError struct {
	code int
	err  error
}

func (e *exitError) Error() string { return e.err.Error() }
func (e *exitError) Unwrap() error { return e.err }

func usagef(format string, args ...any) error {
	return &exitError{exitUsage, fmt.Errorf(format, args...)}
}

// app is what a command's Run gets.
type app struct {
	*ui
	sys    system
	json   bool
	parser *kong.Kong
	api    *client
}

// kongExit carries the exit code of --help and --version out of the parser.
type kongExit int

// run is the whole program; it returns the exit code.
func run(ctx context.Context, sys system) (code int) {
	u := newUI(sys)
	defer func() {
		switch p := recover().(type) {
		case nil:
		case kongExit:
			code = int(p)
		default:
			panic(p)
		}
	}()
	var c cli
	parser, err := newParser(&c, sys)
	if err != nil {
		return u.fail(err)
	}
	a := &app{ui: u, sys: sys, parser: parser, api: &client{notef: u.notef}}
	if complete(ctx, a, &c) {
		return exitOK
	}
	parsed, err := parser.Parse(spoken(sys.args))
	if err != nil {
		if says := guessed(sys.args[0]); says != "" {
			return u.fail(usagef("there is no command %q: %s", sys.args[0], says))
		}
		return u.fail(&exitError{exitUsage, fmt.Errorf("%w (%s --help tells more)", err, commandOf(err))})
	}
	if a.json, err = wantsJSON(c.Output, sys); err != nil {
		return u.fail(err)
	}
	a.api.path = socketPath(c.Socket, sys)
	defer a.api.close()

	parsed.BindTo(ctx, (*context.Context)(nil))
	if err = parsed.Run(a); err == nil {
		err = u.broken
	}
	if err != nil && ctx.Err() != nil {
		return exitInterrupted
	}
	switch {
	case err != nil && a.json:
		return a.failJSON(err)
	case err != nil:
		return u.fail(err)
	}
	return exitOK
}

func newParser(c *cli, sys system) (*kong.Kong, error) {
	return kong.New(c,
		kong.Name("vpnctl"),
		kong.Description(description),
		kong.Writers(sys.stdout, sys.stderr),
		kong.TypeMapper(reflect.TypeFor[time.Duration](), kong.MapperFunc(func(c *kong.DecodeContext, into reflect.Value) error {
			d, err := duration(c)
			into.SetInt(int64(d))
			return err
		})),
		kong.Exit(func(code int) { panic(kongExit(code)) }),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true, NoExpandSubcommands: true}),
	)
}

// commandOf names the command that a parse error is about.
func commandOf(err error) string {
	var p *kong.ParseError
	if errors.As(err, &p) {
		if n := p.Context.Selected(); n != nil {
			return path(n)
		}
		if n := p.Context.Path; len(n) > 0 {
			for i := len(n) - 1; i >= 0; i-- {
				if n[i].Command != nil {
					return path(n[i].Command)
				}
			}
		}
	}
	return "vpnctl"
}

// path is a command as it is typed, without its aliases: "vpnctl user ls".
func path(n *kong.Node) string {
	if n.Parent == nil {
		return n.Name
	}
	return path(n.Parent) + " " + n.Name
}

// socketPath finds the daemon's socket as the daemon itself does.
func socketPath(flag string, sys system) string {
	if flag == "" {
		flag = sys.getenv("VPNCTL_SOCKET")
	}
	if flag != "" {
		return flag
	}
	if sys.uid == 0 {
		return "/run/vpnd/control.sock"
	}
	state := sys.getenv("XDG_STATE_HOME")
	if !filepath.IsAbs(state) { // as the XDG base directory specification says
		state = filepath.Join(sys.getenv("HOME"), ".local", "state")
	}
	return filepath.Join(state, "vpnd", "control.sock")
}

func wantsJSON(flag string, sys system) (bool, error) {
	name := "--output"
	if flag == "" {
		flag, name = sys.getenv("VPNCTL_OUTPUT"), "VPNCTL_OUTPUT"
	}
	switch flag {
	case "", "text":
		return false, nil
	case "json":
		return true, nil
	}
	return false, usagef("%s: %q is no format: text or json", name, flag)
}

type versionFlag bool

// BeforeReset is called by kong as soon as it meets the flag.
func (versionFlag) BeforeReset(k *kong.Kong) error {
	fmt.Fprintln(k.Stdout, "vpnctl", version)
	k.Exit(exitOK)
	return nil
}

// version is set when a release is built.
var version = "dev"
