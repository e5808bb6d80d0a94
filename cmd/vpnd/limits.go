package main

import (
	"net"

	"vpnd/internal/accept"
)

// What strangers, devices and local programs may hold of the daemon's listeners.

// An address of the internet has half of a device's share: there are more of them.
func (d *Daemon) limitPublic(l net.Listener) net.Listener {
	return d.limit(l, accept.Limits{Name: "public portal", All: d.budget.Public, Each: accept.Each(d.budget.Public) / 2, Source: accept.Network})
}

func (d *Daemon) limitTunnel(l net.Listener) net.Listener {
	return d.limit(l, accept.Limits{Name: "portal inside the tunnel", All: d.budget.Tunnel, Each: accept.Each(d.budget.Tunnel), Source: accept.Address})
}

func (d *Daemon) limitControl(l net.Listener) net.Listener {
	return d.limit(l, accept.Limits{Name: "control socket", All: d.budget.Control})
}

// One of several services on this host cannot shut the others out.
func (d *Daemon) limitWhoIs(l net.Listener) net.Listener {
	return d.limit(l, accept.Limits{Name: "whois socket", All: d.budget.WhoIs, Each: max(1, d.budget.WhoIs/2), Source: accept.User})
}

func (d *Daemon) limit(l net.Listener, limits accept.Limits) net.Listener {
	return accept.Limit(l, limits, d.part("accept"))
}
