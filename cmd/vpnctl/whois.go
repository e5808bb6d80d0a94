package main

import (
	"context"
	"net/netip"

	vpnv1 "vpnd/proto/vpn/v1"
)

type whoisCmd struct {
	Address netip.Addr `arg:"" help:"A tunnel address."`
}

func (c *whoisCmd) Run(ctx context.Context, a *app) error {
	r, err := a.api.whois().WhoIs(ctx, &vpnv1.WhoIsRequest{Address: c.Address.String()})
	if err != nil {
		return err
	}
	if a.json {
		return a.printJSON(r)
	}
	var f facts
	f.addStyled("device", r.User+"/"+r.Device, bold)
	f.add("address", r.Address)
	f.add("tags", joined(r.Tags))
	if r.SessionExpiresAt != nil {
		f.addStyled("session ends", a.when(r.SessionExpiresAt), good)
	} else {
		f.add("session", "none: signed out")
	}
	f.draw(a.ui)
	return nil
}
