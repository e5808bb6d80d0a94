package main

import (
	"context"

	vpnv1 "vpnd/proto/vpn/v1"
)

type timeCmd struct {
	Reset timeResetCmd `cmd:"" help:"End all sessions and take the clock's time, even if it is earlier."`
}

type timeResetCmd struct {
	Yes bool `short:"y" help:"Do not ask."`
}

// Help is shown by --help.
func (timeResetCmd) Help() string {
	return `vpnd's time never runs backwards: codes that were used would count again. While this host's clock lies more than five seconds behind the latest time that vpnd has recorded, it signs nobody in and names both times. Set the clock right first (timedatectl, chronyc). If it was the recorded time that was wrong, this command ends all sessions and starts again from the clock.`
}

func (c *timeResetCmd) Run(ctx context.Context, a *app) error {
	if err := a.confirm(ctx, c.Yes, "sign everybody out and set vpnd's time to this host's clock, "+absolute(a.now())+"?"); err != nil {
		return err
	}
	r, err := a.api.gateway().ResetTime(ctx, &vpnv1.ResetTimeRequest{})
	if err != nil {
		return err
	}
	if a.json {
		return a.printJSON(r)
	}
	a.printf("vpnd's time is %s; %s ended.\n", absolute(r.StateTime.AsTime()), number(int(r.Ended), "session"))
	return nil
}
