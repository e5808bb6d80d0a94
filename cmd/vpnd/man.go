package main

import (
	"fmt"
	"strings"

	"github.com/alecthomas/kong"

	"vpnd/internal/manpage"
)

// manFlag prints vpnd(8), tomlFlag vpnd.toml(5): both are made of the flags themselves.
type (
	manFlag  bool
	tomlFlag bool
)

// BeforeReset prints the page and ends the program.
func (manFlag) BeforeReset(k *kong.Kong) error {
	fmt.Fprint(k.Stdout, manual(k.Model))
	k.Exit(0)
	return nil
}

// BeforeReset prints the page and ends the program.
func (tomlFlag) BeforeReset(k *kong.Kong) error {
	fmt.Fprint(k.Stdout, tomlManual(k.Model))
	k.Exit(0)
	return nil
}

func manual(model *kong.Application) string {
	return manpage.Page{
		Name: "vpnd", Section: 8, Manual: "System administration",
		Short:    "WireGuard gateway: a key opens the sign-in page, a code what the policy grants",
		Synopsis: []string{"vpnd [options]"},
		About: `vpnd guards something private: an internal app, a database, a Git server. People connect with the stock WireGuard apps. Their key alone opens nothing but a sign-in page; a fresh code from their authenticator opens, for a bounded time, exactly what the policy grants.

People are invited with vpnctl(1), which also shows what goes on. As a service vpnd is started with "service vpnd start"; vpnctl status says how it does.

An option is taken from the command line, else from its environment variable, else from the file of --config (vpnd.toml(5)).`,
		After: []manpage.Section{
			{Title: "Signals", Terms: []manpage.Term{
				{Name: "SIGTERM, SIGINT", Text: "Stop: close the gateway and take away what vpnd has set up on this host."},
			}},
			{Title: "Exit status", Terms: []manpage.Term{
				{Name: "0", Text: "A stop that was asked for."},
				{Name: "1", Text: "It could not start or go on; the log says why."},
				{Name: "2", Text: "The options or the file of --config make no sense; nothing was done."},
			}},
			{Title: "Files", Text: "Of the Debian package:", Terms: []manpage.Term{
				{Name: "/etc/vpnd/vpnd.toml", Text: "The options of the service, see vpnd.toml(5)."},
				{Name: "/etc/vpnd/sealing.key", Text: "Seals the secrets in the state. Made at the first start; keep a copy apart from backups."},
				{Name: "/var/lib/vpnd", Text: "The replicated state."},
				{Name: "/run/vpnd/control.sock", Text: "Takes vpnctl's commands."},
				{Name: "/run/vpnd/whois.sock", Text: "Says who is calling, to members of the group vpnd."},
			}},
		},
		SeeAlso: []string{"vpnctl(1)", "vpnd.toml(5)", "protected-app(8)", "wg(8)", "nft(8)"},
	}.Command(model)
}

func tomlManual(model *kong.Application) string {
	keys := manpage.Section{Title: "Keys"}
	for _, f := range model.Flags {
		if !settable(f) {
			continue
		}
		text := f.Help
		if f.HasDefault && !strings.Contains(text, f.Default) {
			text += " Default: " + f.Default + "."
		}
		keys.Terms = append(keys.Terms, manpage.Term{Name: fmt.Sprintf("%s = %q", f.Name, strings.Trim(f.FormatPlaceHolder(), `"`)), Text: text})
	}
	return manpage.Page{
		Name: "vpnd.toml", Section: 5, Manual: "File formats",
		Short:    "options of vpnd",
		Synopsis: []string{"/etc/vpnd/vpnd.toml"},
		About: `A TOML file with the options of vpnd(8) under their own names. All may be left out. A list may be written as a list. A key that is no option is an error, so that a misspelt one is not silently without effect.

The command line and the environment win over the file. The service's unit names the places of the data, the sealing key and the sockets in the environment, so that vpnd and vpnctl mean the same ones.`,
		After: []manpage.Section{
			keys,
			{Title: "Example", Text: "endpoint = \"vpn.example.com:51820\"\n\nroutes = [\"10.1.0.0/16\", \"10.2.0.0/16\"]"},
		},
		SeeAlso: []string{"vpnd(8)", "vpnctl(1)"},
	}.File()
}
