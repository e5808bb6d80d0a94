package main

import (
	"context"
	"fmt"
	"log/slog"
	"strings"

	"google.golang.org/grpc/grpclog"
)

// takeGRPC makes the gRPC library write to l what it calls errors; its warnings are about
// connections that ended, and it has no other words worth keeping.
func takeGRPC(l *slog.Logger) { grpclog.SetLoggerV2(grpcLog{l.With("part", "grpc")}) }

type grpcLog struct{ l *slog.Logger }

func (g grpcLog) say(level slog.Level, text string) {
	g.l.Log(context.Background(), level, strings.TrimSpace(text))
}

func (grpcLog) Info(...any)                   {}
func (grpcLog) Infoln(...any)                 {}
func (grpcLog) Infof(string, ...any)          {}
func (g grpcLog) Warning(a ...any)            { g.say(slog.LevelDebug, fmt.Sprint(a...)) }
func (g grpcLog) Warningln(a ...any)          { g.say(slog.LevelDebug, fmt.Sprintln(a...)) }
func (g grpcLog) Warningf(f string, a ...any) { g.say(slog.LevelDebug, fmt.Sprintf(f, a...)) }
func (g grpcLog) Error(a ...any)              { g.say(slog.LevelWarn, fmt.Sprint(a...)) }
func (g grpcLog) Errorln(a ...any)            { g.say(slog.LevelWarn, fmt.Sprintln(a...)) }
func (g grpcLog) Errorf(f string, a ...any)   { g.say(slog.LevelWarn, fmt.Sprintf(f, a...)) }
func (g grpcLog) Fatal(a ...any)              { g.say(slog.LevelError, fmt.Sprint(a...)) }
func (g grpcLog) Fatalln(a ...any)            { g.say(slog.LevelError, fmt.Sprintln(a...)) }
func (g grpcLog) Fatalf(f string, a ...any)   { g.say(slog.LevelError, fmt.Sprintf(f, a...)) }
func (grpcLog) V(int) bool                    { return false }
