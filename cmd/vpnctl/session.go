package main

import (
	"context"
	"strings"

	vpnv1 "vpnd/proto/vpn/v1"
)

type sessionCmd struct {
	Ls  sessionLsCmd  `cmd:"" help:"List who is signed in, the one that ends first at the top." aliases:"list"`
	End sessionEndCmd `cmd:"" help:"Sign a device, a person or everybody out, now."`
}

type sessionLsCmd struct {
	User string `arg:"" optional:"" help:"Whose; everybody's by default." predictor:"user"`
}

func (c *sessionLsCmd) Run(ctx context.Context, a *app) error {
	r, err := a.api.sessions().ListSessions(ctx, &vpnv1.ListSessionsRequest{User: c.User})
	if err != nil {
		return err
	}
	if a.json {
		return a.printJSON(r)
	}
	if len(r.Sessions) == 0 {
		a.notef("nobody is signed in")
		return nil
	}
	t := newTable("DEVICE", "ADDRESS", "SIGNED IN", "LAST CODE", "ENDS")
	for _, s := range r.Sessions {
		addr := ""
		if len(s.Addresses) > 0 {
			addr = s.Addresses[0]
		}
		t.add(text(s.Device), text(addr), text(a.relative(s.StartedAt.AsTime())), text(a.relative(s.CodeAt.AsTime())), text(a.when(s.ExpiresAt)))
	}
	t.draw(a.ui)
	return nil
}

type sessionEndCmd struct {
	Who string `arg:"" optional:"" help:"USER/DEVICE, or USER for all of hers." placeholder:"USER[/DEVICE]" predictor:"device"`
	All bool   `help:"Everybody's."`
	Yes bool   `short:"y" help:"Do not ask."`
}

func (c *sessionEndCmd) Run(ctx context.Context, a *app) error {
	req := &vpnv1.EndSessionsRequest{}
	switch {
	case c.All == (c.Who != ""):
		return usagef("session end: say USER/DEVICE, USER, or --all")
	case c.All:
		if err := a.confirm(ctx, c.Yes, "sign everybody out?"); err != nil {
			return err
		}
		req.Which = &vpnv1.EndSessionsRequest_All{All: true}
	case strings.Contains(c.Who, "/"):
		req.Which = &vpnv1.EndSessionsRequest_Device{Device: c.Who}
	default:
		req.Which = &vpnv1.EndSessionsRequest_User{User: c.Who}
	}
	r, err := a.api.sessions().EndSessions(ctx, req)
	if err != nil {
		return err
	}
	switch {
	case a.json:
		err = a.printJSON(r)
	case r.Ended == 0:
		a.printf("There was no session to end.\n")
	default:
		a.printf("%s ended%s.\n", number(int(r.Ended), "session"), closedOn(r.Closed))
	}
	if err != nil {
		return err
	}
	return a.closed(r.Closed)
}
