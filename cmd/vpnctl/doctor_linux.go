package main

import (
	"context"
	"net/netip"

	"vpnd/internal/doctor"
	vpnv1 "vpnd/proto/vpn/v1"
)

// rootLooks adds what vpnd's sandbox cannot see, at the host where its socket is.
func rootLooks(ctx context.Context, a *app, r *vpnv1.DiagnoseResponse) []*vpnv1.Finding {
	if a.sys.uid != 0 {
		return nil
	}
	var network []netip.Prefix
	for _, s := range r.Network {
		if p, err := netip.ParsePrefix(s); err == nil {
			network = append(network, p)
		}
	}
	return doctor.Root(ctx, doctor.Host{
		Proc: "/proc", WireGuardConfs: "/etc/wireguard", Port: uint16(r.WireguardPort), Portal: uint16(r.PortalPort),
		Interface: r.Interface, Network: network, Known: r.Findings,
	})
}

// deadLooks says why vpnd does not answer, and looks at what can be seen without it.
func deadLooks(ctx context.Context, a *app, err error) []*vpnv1.Finding {
	return doctor.Dead(ctx, doctor.Defaults(a.sys.getenv), err)
}

// watchLine counts the packets for WireGuard's port as they come in, before any firewall.
func watchLine(a *app, r *vpnv1.DiagnoseResponse) (seen func() (from string, packets int), stop func()) {
	if w, err := doctor.Watch(uint16(r.WireguardPort)); err == nil {
		return w.Seen, w.Close
	}
	a.notef("what arrives before WireGuard cannot be seen: run this as root at the gateway's host")
	return func() (string, int) { return "", 0 }, func() {}
}
