// Package libraries makes events of our log of what other people's packages write to the
// process's standard error by themselves. It changes what those packages write to, and nothing
// else.
package libraries

import (
	"context"
	"fmt"
	"log"
	"log/slog"
	"strings"

	"google.golang.org/grpc/grpclog"
)

// Take leads to l what package log's standard logger gets, and gRPC.
func Take(l *slog.Logger) {
	log.SetFlags(0)
	log.SetOutput(standard{l.With("part", "library")})
	grpclog.SetLoggerV2(grpc{l.With("part", "grpc")})
}

// standard gets a line for each event.
type standard struct{ to *slog.Logger }

func (s standard) Write(b []byte) (int, error) {
	s.to.Warn("a library warns", "why", strings.TrimSpace(string(b)))
	return len(b), nil
}

// grpc logs what that library calls errors. Its warnings are about connections that ended, and it
// has no other words worth keeping.
type grpc struct{ to *slog.Logger }

func (g grpc) say(level slog.Level, msg, text string) {
	g.to.Log(context.Background(), level, msg, "what", "grpc", "why", strings.TrimSpace(text))
}

func (g grpc) warn(text string)  { g.say(slog.LevelDebug, "gRPC warns", text) }
func (g grpc) fault(text string) { g.say(slog.LevelWarn, "gRPC fails", text) }
func (g grpc) fatal(text string) { g.say(slog.LevelError, "gRPC ends the process", text) }

func (grpc) Info(...any)                   {}
func (grpc) Infoln(...any)                 {}
func (grpc) Infof(string, ...any)          {}
func (g grpc) Warning(a ...any)            { g.warn(fmt.Sprint(a...)) }
func (g grpc) Warningln(a ...any)          { g.warn(fmt.Sprintln(a...)) }
func (g grpc) Warningf(f string, a ...any) { g.warn(fmt.Sprintf(f, a...)) }
func (g grpc) Error(a ...any)              { g.fault(fmt.Sprint(a...)) }
func (g grpc) Errorln(a ...any)            { g.fault(fmt.Sprintln(a...)) }
func (g grpc) Errorf(f string, a ...any)   { g.fault(fmt.Sprintf(f, a...)) }
func (g grpc) Fatal(a ...any)              { g.fatal(fmt.Sprint(a...)) }
func (g grpc) Fatalln(a ...any)            { g.fatal(fmt.Sprintln(a...)) }
func (g grpc) Fatalf(f string, a ...any)   { g.fatal(fmt.Sprintf(f, a...)) }
func (grpc) V(int) bool                    { return false }
