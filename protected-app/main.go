// Command protected-app is the private resource that ships with vpnd: a small team file
// drop. It has no users and no passwords: vpnd's WhoIs says who is calling, by the
// source address that WireGuard vouches for, and a caller without a live session is
// refused even if no packet filter stands before it.
//
// It listens on the tunnel's interface only, or, behind the netstack plane, on a unix
// socket to which vpnd relays the tunnel's port. It needs no privilege.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/alecthomas/kong"

	"vpnd/internal/accept"
	"vpnd/internal/logs"
	"vpnd/internal/logs/libraries"
)

// version is set by the linker.
var version = "dev"

// Flags are protected-app's.
type Flags struct {
	Interface string           `help:"Tunnel interface to listen on, when it is there (vpn0 unless --socket is given)." placeholder:"NAME" env:"PROTECTED_APP_INTERFACE"`
	Socket    string           `help:"Unix socket to listen on, for vpnd's netstack plane; with --interface, too, both." placeholder:"PATH" env:"PROTECTED_APP_SOCKET"`
	VpndUser  string           `help:"User, by name or number, as which vpnd connects to --socket; root and the app's own may anyway." placeholder:"USER" env:"PROTECTED_APP_VPND_USER"`
	Port      uint16           `help:"TCP port inside the tunnel." default:"8080" env:"PROTECTED_APP_PORT"`
	Whois     string           `help:"Socket on which vpnd says who is calling." default:"/run/vpnd/whois.sock" placeholder:"SOCKET" env:"PROTECTED_APP_WHOIS"`
	Data      string           `help:"Folder of the files." default:"/var/lib/protected-app" placeholder:"DIR" env:"PROTECTED_APP_DATA"`
	MaxFile   int64            `help:"Largest file, in bytes." default:"1073741824" env:"PROTECTED_APP_MAX_FILE"`
	Quota     int64            `help:"Bytes that all files may take together." default:"10737418240" env:"PROTECTED_APP_QUOTA"`
	LogFormat string           `help:"How the log looks: text for people, logfmt or json for programs." enum:"text,logfmt,json" default:"text" env:"PROTECTED_APP_LOG_FORMAT"`
	LogLevel  string           `help:"The least that is logged." enum:"debug,info,warn,error" default:"info" env:"PROTECTED_APP_LOG_LEVEL"`
	Version   kong.VersionFlag `help:"Print the version and exit."`
	Man       manFlag          `help:"Print protected-app(8) and exit." hidden:""`
}

func main() {
	var f Flags
	k := newParser(&f)
	_, err := k.Parse(os.Args[1:])
	k.FatalIfErrorf(err)
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err = run(ctx, f, os.Stderr)
	stop()
	if err != nil {
		f.fail(os.Stderr, err)
		os.Exit(1)
	}
}

// newLog makes the log that the flags ask for.
func (f *Flags) newLog(w io.Writer) *slog.Logger {
	var level slog.Level
	_ = level.UnmarshalText([]byte(f.LogLevel)) // one of the flag's four, or empty: info
	l := logs.New(w, logs.Options{Format: f.LogFormat, Level: level, Journal: inJournal(w)})
	libraries.Take(l)
	return l
}

func inJournal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && logs.InJournal(f)
}

// fail says why the app ends: to a person as every command does, to a program in its format.
func (f *Flags) fail(w io.Writer, err error) {
	if f.LogFormat == "text" && !inJournal(w) {
		fmt.Fprintf(w, "protected-app: %v\n", err)
		return
	}
	f.newLog(w).Error("protected-app ends", "why", err)
}

func newParser(f *Flags) *kong.Kong {
	return kong.Must(f, kong.Name("protected-app"), kong.Vars{"version": version},
		kong.Description("A team file drop that only signed-in devices of a vpnd tunnel reach."))
}

func run(ctx context.Context, f Flags, w io.Writer) error {
	logger := f.newLog(w)
	drop, err := openDrop(filepath.Clean(f.Data), f.MaxFile, f.Quota)
	if err != nil {
		return err
	}
	descriptors, err := accept.Descriptors()
	if err != nil {
		return err
	}
	who, err := dialWhois(f.Whois)
	if err != nil {
		return err
	}
	defer who.Close()

	listeners, err := listen(ctx, f, logger)
	if err != nil {
		return err
	}
	for _, l := range listeners {
		defer l.Close()
		logger.Info("answering", "what", l.where(), "data", f.Data)
	}

	srv := &http.Server{
		Handler:           newHandler(drop, who, f.MaxFile, logger),
		ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout:       time.Minute,
		MaxHeaderBytes:    16 << 10,
		ErrorLog:          logs.HTTPErrors(logger),
	}
	stopped := context.AfterFunc(ctx, func() {
		grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), 3*time.Second)
		defer cancel()
		if srv.Shutdown(grace) != nil {
			srv.Close() // an upload that is cut leaves nothing behind
		}
	})
	defer stopped()
	ended := make(chan error, len(listeners))
	for _, l := range listeners {
		go func() {
			ended <- srv.Serve(accept.Limit(l, limits(l, descriptors/len(listeners)), logger))
		}()
	}
	if err := <-ended; !errors.Is(err, http.ErrServerClosed) && ctx.Err() == nil {
		return fmt.Errorf("serving: %w", err)
	}
	return nil
}

// limits are what all callers and each of them may hold: a connection may need a file, too.
// Behind the socket vpnd counts for each device.
func limits(l listener, descriptors int) accept.Limits {
	out := accept.Limits{Name: "connections", All: min(descriptors/4, 2048)}
	if _, ok := l.(*tunnelListener); ok {
		out.Each, out.Source = accept.Each(out.All), accept.Address
	}
	return out
}

// listen opens what the flags name: the tunnel's interface, the socket, or both.
func listen(ctx context.Context, f Flags, logger *slog.Logger) (list []listener, err error) {
	if f.Socket != "" {
		uid, err := vpndUID(f.VpndUser)
		if err != nil {
			return nil, err
		}
		s, err := listenSocket(f.Socket, uid)
		if err != nil {
			return nil, err
		}
		list = append(list, s)
	}
	if f.Interface == "" && f.Socket == "" {
		f.Interface = "vpn0"
	}
	if f.Interface != "" {
		t, err := listenTunnel(ctx, f.Interface, f.Port, logger)
		if err != nil {
			for _, l := range list {
				l.Close()
			}
			return nil, err
		}
		list = append(list, t)
	}
	return list, nil
}
