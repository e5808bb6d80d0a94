package main

import (
	"fmt"
	"net/netip"
	"path/filepath"
	"strings"

	"vpnd/internal/locals"
)

// openLocals opens the list of what resources may name on this host: the flag's, and what
// vpnctl has added, in a file beside the state.
func (d *Daemon) openLocals() (err error) {
	var flag []string
	for s := range strings.SplitSeq(d.flags.LocalTargets, ",") {
		if s = strings.TrimSpace(s); s != "" {
			flag = append(flag, s)
		}
	}
	own := []string{d.flags.Control, filepath.Join(filepath.Dir(d.flags.Control), "whois.sock"), d.flags.App}
	if d.locals, err = locals.Open(filepath.Join(d.flags.Data, "local-targets"), flag, own); err != nil {
		return fmt.Errorf("--local-targets: %w", err)
	}
	return nil
}

// targets are the addresses of the name of a resource's target.
func (d *Daemon) targets(name string) ([]netip.Addr, error) {
	if d.rec == nil {
		return nil, nil
	}
	return d.rec.Target(name)
}
