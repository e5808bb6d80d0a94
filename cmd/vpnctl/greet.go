package main

import (
	"context"
	"fmt"

	"vpnd/peers"
	vpnv1 "vpnd/proto/vpn/v1"
)

// greetCmd is what the package's postinst says: what to type now. It never fails.
type greetCmd struct{}

func (c *greetCmd) Run(ctx context.Context, a *app) error {
	const help = "If something is in the way:  vpnctl doctor"
	r, err := a.api.gateway().GetStatus(ctx, &vpnv1.GetStatusRequest{})
	switch {
	case a.json && err == nil:
		return a.printJSON(r)
	case a.json:
		return err
	case err != nil:
		fmt.Fprintln(a.out, "vpnd does not run. Start it: service vpnd start")
	case r.Users == 0:
		fmt.Fprintln(a.out, "Invite the first person:     vpnctl user add NAME")
	default:
		fmt.Fprintln(a.out, clean(fmt.Sprintf("vpnd %s runs, with %s and %s.", r.Version, number(int(r.Users), "user"), number(int(r.Devices), "device"))))
	}
	fmt.Fprintln(a.out, help)
	if err == nil {
		if why := peers.NotPublic(r.GetSettings().GetEndpoint()); why != "" {
			fmt.Fprintln(a.out, clean(fmt.Sprintf("People elsewhere cannot dial %s, as %s. Name what they can:", r.Settings.Endpoint, why)))
			fmt.Fprintln(a.out, "  vpnctl settings set --endpoint HOST:PORT")
		}
	}
	return nil
}
