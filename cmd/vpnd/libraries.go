package main

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"time"

	gvisor "gvisor.dev/gvisor/pkg/log"

	"vpnd/internal/logs/libraries"
)

// takeLibraries makes events of l of what libraries write by themselves.
func takeLibraries(l *slog.Logger) {
	libraries.Take(l)
	gvisor.SetTarget(gvisorLog{l.With("part", "gvisor")})
}

type gvisorLog struct{ to *slog.Logger }

// Emit implements gVisor's Emitter: its warnings are ours, the rest is for who looks for something.
func (g gvisorLog) Emit(_ int, level gvisor.Level, _ time.Time, format string, v ...any) {
	as, msg := slog.LevelDebug, "gVisor says"
	if level == gvisor.Warning {
		as, msg = slog.LevelWarn, "gVisor warns"
	}
	g.to.Log(context.Background(), as, msg, "what", "gvisor", "why", strings.TrimSpace(fmt.Sprintf(format, v...)))
}
