package main

import (
	"fmt"

	"github.com/alecthomas/kong"

	"vpnd/internal/manpage"
)

type manCmd struct{}

// Help is shown by --help.
func (manCmd) Help() string {
	return `It is made from the same definitions as the commands themselves, in roff: vpnctl man | man -l -`
}

func (c *manCmd) Run(a *app) error {
	a.write(manual(a.parser.Model))
	return nil
}

// manual is vpnctl(1).
func manual(model *kong.Application) string {
	var exits []manpage.Term
	for _, e := range exitCodes {
		exits = append(exits, manpage.Term{Name: fmt.Sprint(e.code), Text: e.meaning})
	}
	return manpage.Page{
		Name: "vpnctl", Section: 1, Manual: "User Commands",
		Short:    "administer a vpnd gateway",
		Synopsis: []string{"vpnctl [options] noun [verb] [arguments]"},
		About:    description + "\n\nThe options may stand anywhere.",
		After: []manpage.Section{
			{Title: "Output", Text: `With -o json a command prints the daemon's answer as one JSON object, under the names of proto/vpn/v1/vpn.proto, which documents them. Times are as RFC 3339 has them, durations are seconds as in "43200s", and what is unknown is absent. Messages and questions go to standard error.`},
			{Title: "Exit status", Terms: exits},
			{Title: "Environment", Terms: []manpage.Term{
				{Name: "VISUAL, EDITOR", Text: "The editor of policy edit, a command line; else vi."},
				{Name: "VPNCTL_SOCKET", Text: "The daemon's socket, as --socket."},
				{Name: "VPNCTL_OUTPUT", Text: "text or json, as --output."},
				{Name: "NO_COLOR", Text: "Set and not empty: no colour."},
				{Name: "XDG_STATE_HOME", Text: "Where the socket of a vpnd without root is, by default."},
			}},
			{Title: "Files", Terms: []manpage.Term{
				{Name: "/run/vpnd/control.sock", Text: "The socket of a vpnd that root or a service manager runs."},
				{Name: "$XDG_STATE_HOME/vpnd/control.sock", Text: "The socket of a vpnd that any other user runs; ~/.local/state/vpnd/control.sock where the variable is not set."},
			}},
			{Title: "Examples", Terms: []manpage.Term{
				{Name: "vpnctl user add alice", Text: "Invite a person: she enrols in her browser."},
				{Name: "vpnctl device add alice laptop --out laptop.conf", Text: "Make a config for her by hand."},
				{Name: "vpnctl session end alice", Text: "Sign her out everywhere, now."},
				{Name: "vpnctl policy apply policy.hujson --confirm 60s", Text: "Change who may reach what, without locking yourself out."},
				{Name: "vpnctl policy explain alice/phone db:5432", Text: "Find out why somebody reaches something, or not."},
				{Name: "vpnctl -o json device ls | jq -r '.devices[].name'", Text: "Use the answer in a script."},
			}},
		},
		SeeAlso: []string{"vpnd(8)", "vpnd.toml(5)", "protected-app(8)", "wg(8)"},
	}.Command(model)
}
