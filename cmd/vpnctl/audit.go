package main

import (
	"context"

	vpnv1 "vpnd/proto/vpn/v1"
)

type auditCmd struct {
	Limit int32  `short:"n" help:"How many entries; 50 by default." default:"50" placeholder:"N"`
	After uint64 `help:"The entries after this index; by default the newest ones." placeholder:"INDEX"`
}

func (c *auditCmd) Run(ctx context.Context, a *app) error {
	if c.Limit < 1 {
		return usagef("--limit: want at least 1")
	}
	r, err := a.api.gateway().ListAudit(ctx, &vpnv1.ListAuditRequest{After: c.After, Limit: c.Limit})
	if err != nil {
		return err
	}
	if a.json {
		return a.printJSON(r)
	}
	if len(r.Entries) == 0 {
		a.notef("no entries after index %d", c.After)
		return nil
	}
	t := newTable("TIME", "WHO", "WHAT", "WHOM", "")
	for _, e := range r.Entries {
		t.add(text(absolute(e.At.AsTime())), text(e.Actor), text(e.Action), text(e.Target), cell{e.Detail, faint})
	}
	t.draw(a.ui)
	return nil
}
