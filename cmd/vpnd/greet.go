package main

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"strings"

	"vpnd/peers"
)

// greet tells the person who starts vpnd what it has made of the host.
func (d *Daemon) greet(ctx context.Context, s peers.Settings) {
	stats, err := d.Stats(ctx)
	if err != nil {
		d.log.Warn("the data plane's state could not be read", "what", "plane.read", "why", err)
	}
	url := func(a netip.Addr, port string) string {
		if port != "" {
			return "http://" + net.JoinHostPort(a.String(), port) + "/"
		}
		if a.Is6() {
			return "http://[" + a.String() + "]/"
		}
		return "http://" + a.String() + "/"
	}
	gate := s.GatewayAddrs()[0]
	rows := [][2]string{
		{"plane", stats.Plane + ": " + stats.Detail},
		{"clients dial", s.Endpoint + " (UDP); " + d.endpointRemedy()},
		{"portal", s.URL + d.certificate()},
		{"sign in", url(gate, "") + " inside the tunnel"},
		{"app", url(gate, fmt.Sprint(d.flags.AppPort)) + " inside the tunnel, after signing in"},
		{"vpnctl", "by the socket " + d.flags.Control},
		{"sealing key", d.flags.SealingKey + " (keep a copy of it apart from backups)"},
	}
	if d.flags.LogFormat != "text" || d.journal {
		d.log.Info("vpnd is ready", "version", version, "plane", stats.Plane, "why", stats.Detail, "endpoint", s.Endpoint, "url", s.URL,
			"control", d.flags.Control, "ca", d.fingerprint())
		for _, f := range stats.Filters {
			d.log.Warn("attention", "why", f.String())
		}
		return
	}
	var b strings.Builder
	fmt.Fprintf(&b, "\nvpnd %s is ready.\n", version)
	for _, r := range rows {
		fmt.Fprintf(&b, "  %-12s  %s\n", r[0], r[1])
	}
	for _, f := range stats.Filters {
		fmt.Fprintf(&b, "\n  Attention: %s\n", f)
	}
	fmt.Fprintln(&b)
	fmt.Fprint(d.out, b.String())
}

// endpointRemedy says how another address is told, if this one is wrong.
func (d *Daemon) endpointRemedy() string {
	if by, ok := d.flags.from["endpoint"]; ok {
		return "given by " + by
	}
	return "change it with: vpnctl settings set --endpoint HOST:PORT"
}

func (d *Daemon) certificate() string {
	if print := d.fingerprint(); print != "" {
		return "\n                (own CA, SHA-256 " + print + ")"
	}
	return ""
}

// fingerprint is the own CA's, empty where a certificate was given.
func (d *Daemon) fingerprint() string {
	if d.flags.Cert != "" {
		return ""
	}
	return d.service.CAFingerprint()
}
