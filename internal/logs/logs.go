// Package logs makes the one log of a program: an event a line, in one of three formats,
// with priorities for systemd's journal. What libraries write goes through it too.
//
// The fields are the same everywhere: user, device, source (an address), who (who did it), what,
// why, and part (of the program). No secret is ever one.
package logs

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Options say how the log looks.
type Options struct {
	Format  string       // "text" for people, "logfmt" or "json" for programs
	Level   slog.Leveler // the least that is written; nil: info
	Journal bool         // each line begins with sd-daemon(3)'s priority; text leaves the time to the journal
}

// New returns a log that writes to w.
func New(w io.Writer, o Options) *slog.Logger {
	if o.Level == nil {
		o.Level = slog.LevelInfo
	}
	out := &lineWriter{w: w, journal: o.Journal}
	ho := &slog.HandlerOptions{Level: o.Level, ReplaceAttr: plainTime}
	var h slog.Handler
	switch o.Format {
	case "json":
		h = slog.NewJSONHandler(out, ho)
	case "logfmt":
		h = slog.NewTextHandler(out, ho)
	default:
		h = &text{out: out, level: o.Level, time: !o.Journal}
	}
	return slog.New(priority{h, out})
}

// plainTime writes times in UTC, to the millisecond.
func plainTime(groups []string, a slog.Attr) slog.Attr {
	if len(groups) == 0 && a.Key == slog.TimeKey {
		return slog.String(slog.TimeKey, a.Value.Time().UTC().Format("2006-01-02T15:04:05.000Z"))
	}
	return a
}

// InJournal says whether f is connected to systemd's journal (systemd.exec(5), JOURNAL_STREAM).
func InJournal(f *os.File) bool {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return false
	}
	return os.Getenv("JOURNAL_STREAM") == fmt.Sprintf("%d:%d", st.Dev, st.Ino)
}

// lineWriter writes whole lines, with their priority in front.
type lineWriter struct {
	mu      sync.Mutex // of one event: priority sets level, the handler writes once
	w       io.Writer
	journal bool
	level   slog.Level
}

func (l *lineWriter) Write(b []byte) (int, error) {
	if l.journal {
		if _, err := l.w.Write(append([]byte(priorityOf(l.level)), b...)); err != nil {
			return 0, err
		}
		return len(b), nil
	}
	return l.w.Write(b)
}

// priorityOf is sd-daemon(3)'s prefix.
func priorityOf(level slog.Level) string {
	switch {
	case level >= slog.LevelError:
		return "<3>"
	case level >= slog.LevelWarn:
		return "<4>"
	case level >= slog.LevelInfo:
		return "<6>"
	}
	return "<7>"
}

// priority tells the writer an event's level.
type priority struct {
	slog.Handler
	out *lineWriter
}

func (p priority) Handle(ctx context.Context, r slog.Record) error {
	p.out.mu.Lock()
	defer p.out.mu.Unlock()
	p.out.level = r.Level
	return p.Handler.Handle(ctx, r)
}

func (p priority) WithAttrs(as []slog.Attr) slog.Handler {
	return priority{p.Handler.WithAttrs(as), p.out}
}
func (p priority) WithGroup(name string) slog.Handler {
	return priority{p.Handler.WithGroup(name), p.out}
}

// text is the format for people: time, level unless it is info, message, fields.
type text struct {
	out   io.Writer
	level slog.Leveler
	time  bool
	attrs []slog.Attr
}

func (t *text) Enabled(_ context.Context, l slog.Level) bool { return l >= t.level.Level() }

func (t *text) Handle(_ context.Context, r slog.Record) error {
	var b strings.Builder
	if t.time {
		b.WriteString(r.Time.Local().Format(time.DateTime) + " ")
	}
	if r.Level != slog.LevelInfo {
		b.WriteString(strings.ToLower(r.Level.String()) + ": ")
	}
	b.WriteString(oneLine(r.Message))
	write := func(a slog.Attr) bool {
		b.WriteString(" " + a.Key + "=" + word(a.Value.Resolve().String()))
		return true
	}
	for _, a := range t.attrs {
		write(a)
	}
	r.Attrs(write)
	b.WriteByte('\n')
	_, err := io.WriteString(t.out, b.String())
	return err
}

func (t *text) WithAttrs(as []slog.Attr) slog.Handler {
	c := *t
	c.attrs = append(append([]slog.Attr(nil), t.attrs...), as...)
	return &c
}

// WithGroup is not used in this program.
func (t *text) WithGroup(string) slog.Handler { return t }

// oneLine keeps an event on its line, whatever is in it.
func oneLine(s string) string {
	s = strings.TrimSpace(s)
	if strings.IndexFunc(s, isControl) < 0 {
		return s
	}
	q := fmt.Sprintf("%q", s)
	return q[1 : len(q)-1]
}

// word is a value as logfmt has it.
func word(s string) string {
	if s == "" || strings.ContainsAny(s, " =\"\\") || strings.IndexFunc(s, isControl) >= 0 {
		return fmt.Sprintf("%q", s)
	}
	return s
}

// isControl says whether r moves a terminal's cursor or hides text on it.
func isControl(r rune) bool {
	return r < 0x20 || r == 0x7f || r >= 0x80 && r < 0xa0 || r == '\u2028' || r == '\u2029' || r >= '\u202a' && r <= '\u202e' || r == '\ufffd'
}
