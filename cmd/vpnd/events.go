package main

import (
	"context"
	"io"
	"log/slog"
	"os"
	"strings"

	"vpnd/internal/logs"
	"vpnd/peers"
)

// newLog makes the log that the flags ask for; level changes what is written later.
func newLog(f *Flags, w io.Writer, level *slog.LevelVar) *slog.Logger {
	level.Set(f.level())
	l := logs.New(w, logs.Options{Format: f.LogFormat, Level: level, Journal: inJournal(w)})
	takeLibraries(l)
	return l
}

func (f *Flags) level() (l slog.Level) {
	_ = l.UnmarshalText([]byte(f.LogLevel)) // one of the flag's four, or empty: info
	return l
}

func inJournal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && logs.InJournal(f)
}

// part is the log of a part.
func (d *Daemon) part(name string) *slog.Logger { return d.log.With("part", name) }

// fail says why vpnd ends: to a person as every command does, to a program in its format.
func (f *Flags) fail(w io.Writer, err error) {
	if f.LogFormat == "text" && !inJournal(w) {
		io.WriteString(w, "vpnd: "+err.Error()+"\n")
		return
	}
	newLog(f, w, new(slog.LevelVar)).Error("vpnd ends", "why", err)
}

// logEvents writes what the audit log gets after view, until ctx ends: who did what to whom.
func (d *Daemon) logEvents(ctx context.Context, view *peers.View) {
	d.follow(ctx, view, func(view *peers.View, e peers.Entry) {
		if e.Action == "gateway.drift" {
			return // was logged where it was seen
		}
		for target := range strings.SplitSeq(e.Target, ", ") { // several sessions that ended
			e.Target = target
			d.log.LogAttrs(ctx, eventLevel(e.Action), "audit", eventFields(view, e)...)
		}
	})
}

// follow gives each new line of the audit log after view, with a view that has it.
func (d *Daemon) follow(ctx context.Context, view *peers.View, each func(*peers.View, peers.Entry)) {
	last := view.Index()
	for {
		select {
		case <-view.Changed():
		case <-ctx.Done():
			return
		}
		view = d.store.State().View()
		for _, e := range view.Audit(last, 0) {
			each(view, e)
		}
		last = view.Index()
	}
}

// eventLevel warns of what somebody should look at.
func eventLevel(action string) slog.Level {
	switch action {
	case "user.lock", "time.reset":
		return slog.LevelWarn
	}
	return slog.LevelInfo
}

// eventFields are what one greps for. A device is "user/device" in the audit log; source is
// the tunnel address that it speaks from.
func eventFields(v *peers.View, e peers.Entry) []slog.Attr {
	out := []slog.Attr{slog.String("what", e.Action), slog.String("who", e.Actor)}
	user, device, _ := strings.Cut(e.Target, "/")
	switch kind, _, _ := strings.Cut(e.Action, "."); kind {
	case "user", "code", "invitation", "enrol", "device", "session":
		out = append(out, slog.String("user", user))
		if device != "" {
			out = append(out, slog.String("device", device))
		}
		if addrs := addressesOf(v, user, device); addrs != "" {
			out = append(out, slog.String("source", addrs))
		}
	default:
		if e.Target != "" {
			out = append(out, slog.String("target", e.Target))
		}
	}
	if e.Detail != "" {
		out = append(out, slog.String("why", e.Detail))
	}
	return append(out, slog.Uint64("index", e.Index))
}

// addressesOf are a device's tunnel addresses, empty once it is gone.
func addressesOf(v *peers.View, user, device string) string {
	u := v.UserByName(user)
	if u == nil || device == "" {
		return ""
	}
	d := v.DeviceByName(u.ID, device)
	if d == nil {
		return ""
	}
	var out []string
	for _, a := range d.Addrs {
		out = append(out, a.String())
	}
	return strings.Join(out, ",")
}
