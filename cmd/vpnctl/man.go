package main

import (
	"fmt"
	"strings"

	"github.com/alecthomas/kong"
)

type manCmd struct{}

// Help is shown by --help.
func (manCmd) Help() string {
	return `It is made from the same definitions as the commands themselves, in roff: vpnctl man | man -l -`
}

func (c *manCmd) Run(a *app) error {
	var m man
	m.page(a.parser.Model)
	a.write(m.String())
	return nil
}

// man writes man(7) macros.
type man struct{ strings.Builder }

func (m *man) line(format string, args ...any) {
	fmt.Fprintf(m, format+"\n", args...)
}

// text writes a paragraph's words; a line must not begin as a macro does.
func (m *man) text(s string) {
	for _, l := range strings.Split(strings.TrimSpace(s), "\n") {
		l = roff(strings.TrimSpace(l))
		if strings.HasPrefix(l, ".") || strings.HasPrefix(l, "'") {
			l = `\&` + l
		}
		if l != "" {
			m.line("%s", l)
		} else {
			m.line(".PP")
		}
	}
}

// roff escapes what troff would read as its own.
func roff(s string) string {
	return strings.NewReplacer(`\`, `\e`, "-", `\-`, "'", `\(aq`, "`", `\(ga`, "^", `\(ha`, "~", `\(ti`, "…", "...").Replace(s)
}

func (m *man) page(model *kong.Application) {
	m.line(`.TH VPNCTL 8 "" "vpnd" "System administration"`)
	m.line(".SH NAME")
	m.line(`vpnctl \- administer a vpnd gateway`)
	m.line(".SH SYNOPSIS")
	m.line(`.B vpnctl`)
	m.line(`[\fIoptions\fR] \fInoun\fR [\fIverb\fR] [\fIarguments\fR]`)
	m.line(".SH DESCRIPTION")
	m.text(description)
	m.line(".SH OPTIONS")
	m.line("These may stand anywhere.")
	m.flags(model.Flags)
	m.line(".SH COMMANDS")
	for _, n := range model.Leaves(true) {
		m.command(n)
	}
	m.line(".SH OUTPUT")
	m.text(`With -o json a command prints the daemon's answer as one JSON object, under the names of proto/vpn/v1/vpn.proto, which documents them. Times are as RFC 3339 has them, durations are seconds as in "43200s", and what is unknown is absent. Messages and questions go to standard error.`)
	m.line(".SH EXIT STATUS")
	for _, e := range exitCodes {
		m.line(".TP\n.B %d", e.code)
		m.text(e.meaning)
	}
	m.line(".SH ENVIRONMENT")
	for _, e := range [][2]string{
		{"VISUAL, EDITOR", "The editor of policy edit, a command line; else vi."},
		{"VPNCTL_SOCKET", "The daemon's socket, as --socket."},
		{"VPNCTL_OUTPUT", "text or json, as --output."},
		{"NO_COLOR", "Set and not empty: no colour."},
		{"XDG_STATE_HOME", "Where the socket of a vpnd without root is, by default."},
	} {
		m.line(".TP\n.B %s", roff(e[0]))
		m.text(e[1])
	}
	m.line(".SH FILES")
	m.line(".TP\n.I /run/vpnd/control.sock")
	m.text("The socket of a vpnd that root runs.")
	m.line(".TP\n.I $XDG_STATE_HOME/vpnd/control.sock")
	m.text("The socket of a vpnd that any other user runs; ~/.local/state/vpnd/control.sock where the variable is not set.")
	m.line(".SH EXAMPLES")
	for _, e := range [][2]string{
		{"vpnctl user add alice", "Invite a person: she enrols in her browser."},
		{"vpnctl device add alice laptop --out laptop.conf", "Make a config for her by hand."},
		{"vpnctl session end alice", "Sign her out everywhere, now."},
		{"vpnctl policy apply policy.hujson --confirm 60s", "Change who may reach what, without locking yourself out."},
		{"vpnctl policy explain alice/phone db:5432", "Find out why somebody reaches something, or not."},
		{"vpnctl -o json device ls | jq -r '.devices[].name'", "Use the answer in a script."},
	} {
		m.line(".TP\n.B %s", roff(e[0]))
		m.text(e[1])
	}
	m.line(".SH SEE ALSO")
	m.line(".BR wg (8),\n.BR wg\\-quick (8)")
}

func (m *man) command(n *kong.Node) {
	m.line(".SS %s", roff(strings.TrimPrefix(path(n), "vpnctl ")))
	synopsis := `\fB` + roff(path(n)) + `\fR`
	for _, p := range n.Positional {
		synopsis += " " + roff(p.Summary())
	}
	if len(n.Flags) > 0 {
		synopsis += ` [\fIoptions\fR]`
	}
	m.line("%s\n.PP", synopsis)
	m.text(n.Help)
	if n.Detail != "" {
		m.line(".PP")
		m.text(n.Detail)
	}
	for _, p := range n.Positional {
		m.line(".TP\n%s", roff(p.Summary()))
		m.text(p.Help)
	}
	m.flags(n.Flags)
}

func (m *man) flags(flags []*kong.Flag) {
	for _, f := range flags {
		if f.Hidden {
			continue
		}
		name := `\fB` + roff("--"+f.Name) + `\fR`
		if f.Short != 0 {
			name = `\fB` + roff("-"+string(f.Short)) + `\fR, ` + name
		}
		if !f.IsBool() {
			name += ` \fI` + roff(f.FormatPlaceHolder()) + `\fR`
		}
		m.line(".TP\n%s", name)
		m.text(f.Help)
	}
}
