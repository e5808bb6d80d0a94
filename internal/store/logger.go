package store

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"strings"

	"github.com/hashicorp/go-hclog"
)

// newLogger makes what Raft, its log and its transport warn about events of ours.
func newLogger(log *slog.Logger) hclog.Logger {
	if log == nil {
		return hclog.NewNullLogger()
	}
	l := hclog.NewInterceptLogger(&hclog.LoggerOptions{Name: "raft", Level: hclog.Warn, Output: io.Discard})
	l.RegisterSink(&sink{log})
	return l
}

// sink gets the library's events as they are, not as its lines.
type sink struct{ log *slog.Logger }

// Accept implements hclog.SinkAdapter. What the library calls an error is a warning here: an
// error is why vpnd ends.
func (s *sink) Accept(name string, level hclog.Level, msg string, args ...any) {
	// Every start of an only voter begins with the heartbeat's.
	if level < hclog.Warn || strings.HasPrefix(msg, "heartbeat timeout reached") {
		return
	}
	s.log.LogAttrs(context.Background(), slog.LevelWarn, msg, append([]slog.Attr{slog.String("what", name)}, fields(args)...)...)
}

// fields are a library's pairs of names and values by our names, each once.
func fields(pairs []any) (out []slog.Attr) {
	taken := map[string]bool{slog.TimeKey: true, slog.LevelKey: true, slog.MessageKey: true, "what": true, "part": true}
	for i := 0; i+1 < len(pairs); i += 2 {
		key := strings.ReplaceAll(fmt.Sprint(pairs[i]), "-", "_")
		if key == "error" {
			key = "why"
		}
		for taken[key] {
			key = "raft_" + key
		}
		taken[key] = true
		out = append(out, slog.String(key, written(pairs[i+1])))
	}
	return out
}

func written(v any) string {
	if f, ok := v.(hclog.Format); ok && len(f) > 0 {
		return fmt.Sprintf(fmt.Sprint(f[0]), f[1:]...)
	}
	return fmt.Sprint(v)
}
