package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/alecthomas/kong"

	vpnv1 "vpnd/proto/vpn/v1"
)

type doctorCmd struct {
	Wait waiting `help:"Wait for a client from outside, and say how far its packets come: 3m, or --wait=TIME." placeholder:"TIME"`
}

// waiting is a duration that need not be given.
type waiting time.Duration

// usualWait is enough to take a phone out of the Wi-Fi and switch its tunnel on.
const usualWait = waiting(3 * time.Minute)

// IsBool makes kong take the flag without a value.
func (waiting) IsBool() bool { return true }

// Decode reads "--wait", "--wait=TIME" and, as every other flag of a time is written so, too,
// "--wait TIME".
func (p *waiting) Decode(c *kong.DecodeContext) error {
	next := c.Scan.Peek()
	_, isText := next.Value.(string)
	switch {
	case next.Type == kong.FlagValueToken:
	case next.Type == kong.UntypedToken && isText && startsAsNumber(next.String()):
	default:
		*p = usualWait
		return nil
	}
	d, err := duration(c)
	if err == nil && d <= 0 {
		err = fmt.Errorf("%s is no time to wait: write it as 3m", d)
	}
	*p = waiting(d)
	return err
}

func startsAsNumber(s string) bool { return s != "" && '0' <= s[0] && s[0] <= '9' }

// Help is shown by --help.
func (doctorCmd) Help() string {
	return `It looks at the whole installation: what clients dial, firewalls, clock, routes, MTU, certificate, disk, files, the policy's hosts. Each finding has a line that says what to do; what must be done comes first, and makes the exit code 1. As root on the gateway's host it looks at more, and also where vpnd does not run. docs/operations.md lists all findings.`
}

func (c *doctorCmd) Run(ctx context.Context, a *app) error {
	r, err := a.api.gateway().Diagnose(ctx, &vpnv1.DiagnoseRequest{})
	switch {
	case err == nil:
		r.Findings = merge(r.Findings, rootLooks(ctx, a, r))
	case exitCode(err) == exitUnreachable:
		// What can be seen without vpnd.
		r = &vpnv1.DiagnoseResponse{Findings: deadLooks(ctx, a, err)}
	default:
		return err
	}
	if a.json {
		if err := a.printJSON(r); err != nil {
			return err
		}
	} else {
		a.drawFindings(r.Findings)
	}
	if c.Wait > 0 && err == nil {
		if err := c.wait(ctx, a, r); err != nil {
			return err
		}
	}
	if n := countOf(r.Findings, "must"); n > 0 {
		return &exitError{exitFailed, fmt.Errorf("%s must be done", number(n, "thing"))}
	}
	return nil
}

// severities, in the order in which they are shown, with how they look.
var severities = []struct{ name, style string }{{"must", bad}, {"advice", warn}, {"unknown", plain}, {"ok", good}}

func rank(f *vpnv1.Finding) int {
	for i, s := range severities {
		if s.name == f.Severity {
			return i
		}
	}
	return 0 // a newer vpnd's: not to be overlooked
}

// merge adds what vpnctl has seen itself. It replaces what vpnd could not see of the same
// subject.
func merge(theirs, own []*vpnv1.Finding) []*vpnv1.Finding {
	theirs = slices.DeleteFunc(slices.Clone(theirs), func(f *vpnv1.Finding) bool {
		return f.Severity == "unknown" && slices.ContainsFunc(own, func(o *vpnv1.Finding) bool { return o.Subject == f.Subject })
	})
	all := append(theirs, own...)
	slices.SortStableFunc(all, func(x, y *vpnv1.Finding) int { return rank(x) - rank(y) })
	return all
}

func countOf(list []*vpnv1.Finding, severity string) (n int) {
	for _, f := range list {
		if f.Severity == severity {
			n++
		}
	}
	return n
}

// drawFindings shows a line for each, and below it what to do.
func (a *app) drawFindings(list []*vpnv1.Finding) {
	word, subject := 0, 0
	for _, f := range list {
		word, subject = max(word, len(clean(f.Severity))), max(subject, len(clean(f.Subject)))
	}
	indent := strings.Repeat(" ", word+2+subject+2)
	for _, f := range list {
		name, about := clean(f.Severity), clean(f.Subject)
		a.write(a.paint(severities[rank(f)].style, name) + strings.Repeat(" ", word-len(name)+2) +
			about + strings.Repeat(" ", subject-len(about)+2) + fold(clean(f.Text), a.columns-len(indent), indent) + "\n")
		if f.Remedy != "" {
			a.write(indent + a.paint(bold, "→ "+clean(f.Remedy)) + "\n")
		}
	}
}

// fold breaks a text into lines of so many columns, below each other. Where nobody looks, or
// the terminal is too narrow, it stays one line: that is found by grep. A remedy always does:
// it is copied.
func fold(text string, columns int, indent string) string {
	const narrow = 20
	if columns < narrow {
		return text
	}
	var b strings.Builder
	at := 0
	for i, word := range strings.Fields(text) {
		n := utf8.RuneCountInString(word)
		switch {
		case i == 0:
		case at+1+n > columns:
			b.WriteString("\n" + indent)
			at = 0
		default:
			b.WriteByte(' ')
			at++
		}
		b.WriteString(word)
		at += n
	}
	return b.String()
}

// wait says how far clients from outside have come, as they come.
func (c *doctorCmd) wait(ctx context.Context, a *app, r *vpnv1.DiagnoseResponse) error {
	start := a.now()
	seen, stop := watchLine(a, r)
	defer stop()
	a.notef("waiting %s for a client from outside: connect a phone by mobile data, without Wi-Fi", length(time.Duration(c.Wait)))
	said := ""
	say := func(format string, args ...any) {
		if s := fmt.Sprintf(format, args...); s != said {
			said = s
			a.notef("%s", s)
		}
	}
	for a.now().Sub(start) < time.Duration(c.Wait) {
		o, err := a.api.gateway().Diagnose(ctx, &vpnv1.DiagnoseRequest{OutsideOnly: true})
		if err != nil {
			return err
		}
		from, packets := seen()
		switch w := o.Outside; {
		case w != nil && w.HandshakeAt.AsTime().After(start.Add(-time.Second)):
			if w.Received > 0 {
				say("%s came from %s, shook hands and sends data through the tunnel: this gateway is reached from outside", w.Device, w.Address)
				return nil
			}
			say("%s came from %s and shook hands; nothing has come through the tunnel yet", w.Device, w.Address)
		case packets > 0:
			say("packets of %s arrive at this host's line, and WireGuard has not shaken hands: a firewall of this host drops them, or the key in the client's config is not one of this gateway's devices", from)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(time.Second):
		}
	}
	if said == "" {
		said = fmt.Sprintf("nothing came to UDP port %d within %s: the client dials something else, or a firewall or router before this host keeps it", r.WireguardPort, length(time.Duration(c.Wait)))
	}
	return &exitError{exitFailed, fmt.Errorf("%s", said)}
}
