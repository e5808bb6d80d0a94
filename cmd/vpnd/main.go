// Command vpnd is a WireGuard gateway that guards a private resource: it manages
// peers and access, serves the sign-in portal and the control socket, and drives the
// data plane. It only wires; every decision is made in the packages that it starts.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/alecthomas/kong"
	"golang.org/x/sys/unix"
)

// version is set by the linker.
var version = "dev"

func main() {
	unix.Umask(0o077) // the log's and the snapshots' files are made by libraries
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := Main(ctx, os.Args[1:], os.Stderr)
	stop()
	os.Exit(code)
}

// Main runs vpnd with these arguments until ctx ends and returns its exit code: 0 after
// a stop that was asked for, 2 for arguments that make no sense, else 1. Messages for
// people go to w.
func Main(ctx context.Context, args []string, w io.Writer) int {
	f, err := parse(args, w)
	if err != nil {
		var help helpShown
		if errors.As(err, &help) {
			return int(help)
		}
		fmt.Fprintf(w, "vpnd: %v\n", err)
		return 2
	}
	d, err := Open(ctx, f, w)
	if err != nil {
		fmt.Fprintf(w, "vpnd: %v\n", err)
		return 1
	}
	err = d.Run(ctx)
	if ctx.Err() != nil && errors.Is(err, context.Canceled) {
		err = nil // the stop that was asked for
	}
	if err = errors.Join(err, d.Close()); err != nil {
		fmt.Fprintf(w, "vpnd: %v\n", err)
		return 1
	}
	return 0
}

// helpShown is kong's wish to exit after it has printed help or the version.
type helpShown int

func (h helpShown) Error() string { return "help shown" }

// parse reads arguments, environment and the config file, in this order of strength.
func parse(args []string, w io.Writer) (f *Flags, err error) {
	f = &Flags{}
	k, err := kong.New(f,
		kong.Name("vpnd"),
		kong.Description("A WireGuard gateway: a key opens the sign-in page, a code opens what the policy grants."),
		kong.Writers(w, w),
		kong.Vars{"version": version},
		kong.Exit(func(code int) { panic(helpShown(code)) }),
		kong.UsageOnError(),
	)
	if err != nil {
		return nil, err
	}
	defer func() {
		if r := recover(); r != nil {
			h, ok := r.(helpShown)
			if !ok {
				panic(r)
			}
			err = h
		}
	}()
	if err := addConfigFile(k, args); err != nil {
		return nil, err
	}
	if _, err := k.Parse(args); err != nil {
		return nil, fmt.Errorf("%w; see vpnd --help", err)
	}
	return f, f.complete()
}
