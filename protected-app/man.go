package main

import (
	"fmt"

	"github.com/alecthomas/kong"

	"vpnd/internal/manpage"
)

// manFlag prints protected-app(8), which is made of the flags themselves.
type manFlag bool

// BeforeReset prints the page and ends the program.
func (manFlag) BeforeReset(k *kong.Kong) error {
	fmt.Fprint(k.Stdout, manual(k.Model))
	k.Exit(0)
	return nil
}

func manual(model *kong.Application) string {
	return manpage.Page{
		Name: "protected-app", Section: 8, Manual: "System administration",
		Short:    "team file drop behind a vpnd gateway",
		Synopsis: []string{"protected-app [options]"},
		About: `A small file drop that only people who are signed in reach, through the tunnel of vpnd(8). It has no users and no passwords of its own: at each request it asks vpnd who is calling, and refuses a caller without a live session even where no packet filter stands before it.

It listens on the tunnel's interface alone, or on a unix socket to which vpnd's netstack plane relays the tunnel's port. It needs no privilege.`,
		After: []manpage.Section{{Title: "Files", Text: "Of the Debian package:", Terms: []manpage.Term{
			{Name: "/var/lib/vpnd-app", Text: "The files that people have put there."},
			{Name: "/run/vpnd/whois.sock", Text: "Where vpnd says who is calling."},
			{Name: "/run/vpnd-app/app.sock", Text: "Where vpnd's netstack plane hands connections over."},
		}}},
		SeeAlso: []string{"vpnd(8)", "vpnctl(1)"},
	}.Command(model)
}
