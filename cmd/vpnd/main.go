// Command vpnd is a WireGuard gateway that guards a private resource: it manages
// peers and access, serves the sign-in portal and the control socket, and drives the
// data plane. It only wires; every decision is made in the packages that it starts.
package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"syscall"
	"text/tabwriter"

	"github.com/alecthomas/kong"
	"golang.org/x/sys/unix"
)

// version is set by the linker.
var version = "dev"

func main() {
	unix.Umask(0o077) // the log's and the snapshots' files are made by libraries
	end := []os.Signal{os.Interrupt, syscall.SIGTERM}
	if underManager() {
		signal.Ignore(syscall.SIGHUP) // until it means reload
	} else {
		end = append(end, syscall.SIGHUP)
	}
	ctx, stop := signal.NotifyContext(context.Background(), end...)
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
		f.fail(w, err)
		return 1
	}
	err = d.Run(ctx)
	if ctx.Err() != nil && errors.Is(err, context.Canceled) {
		err = nil // the stop that was asked for
	}
	if err = errors.Join(err, d.Close()); err != nil {
		f.fail(w, err)
		return 1
	}
	return 0
}

// helpShown is the wish to exit after help, the version or the checked flags were printed.
type helpShown int

func (h helpShown) Error() string { return "help shown" }

// print shows every flag's value and where it comes from.
func (f *Flags) print(k *kong.Kong, w io.Writer) {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, fl := range k.Model.Flags {
		if fl.Hidden || slices.Contains(notInFile, fl.Name) {
			continue
		}
		from := cmp.Or(f.from[fl.Name], "default")
		value := fmt.Sprint(fl.Target.Interface())
		if value == "" {
			value = "-"
		}
		fmt.Fprintf(t, "%s\t%s\t%s\n", fl.Name, value, from)
	}
	t.Flush()
}

// parse reads arguments, environment and the config file, in this order of strength.
func parse(args []string, w io.Writer) (f *Flags, err error) {
	f = &Flags{args: args}
	k, err := newParser(f, w)
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
	file, err := readConfig(k, args)
	if err != nil {
		return nil, err
	}
	if err := kong.Resolvers(kong.ResolverFunc(file.resolve)).Apply(k); err != nil {
		return nil, err
	}
	parsed, err := k.Parse(args)
	if err != nil {
		return nil, fmt.Errorf("%w; see vpnd --help", err)
	}
	f.from = file.origins(parsed)
	if err := f.complete(); err != nil {
		return nil, err
	}
	if f.CheckConfig {
		f.print(k, w)
		return nil, helpShown(0)
	}
	return f, nil
}

func newParser(f *Flags, w io.Writer) (*kong.Kong, error) {
	return kong.New(f,
		kong.Name("vpnd"),
		kong.Description("A WireGuard gateway: a key opens the sign-in page, a code opens what the policy grants."),
		kong.Writers(w, w),
		kong.Vars{"version": version},
		kong.Exit(func(code int) { panic(helpShown(code)) }),
		kong.UsageOnError(),
	)
}
