package main

import (
	"context"
	"errors"
	"io"
	"net/netip"
	"time"
)

// recheck is how often a long transfer asks again whether its caller still has a
// session. The data plane cuts it at once; this is for the case that there is none.
const recheck = 2 * time.Second

// stall is how long an upload may bring nothing.
const stall = time.Minute

// guard knows who a request's caller is, and asks again when that answer has aged.
type guard struct {
	who    whois
	addr   netip.Addr
	now    func() time.Time
	caller caller
	asked  time.Time
}

// check fails unless the address is that of a device with a live session, and the same
// user's as at the first check.
func (g *guard) check(ctx context.Context) error {
	now := g.now()
	if !g.asked.IsZero() && now.Sub(g.asked) < recheck && now.Before(g.caller.Expires) {
		return nil
	}
	c, err := g.who.ask(ctx, g.addr)
	switch {
	case errors.Is(err, errStranger):
		return stranger
	case err != nil:
		return noVpnd
	case !c.Expires.After(now), c.User == "":
		return noSession
	case !g.asked.IsZero() && (c.User != g.caller.User || c.Device != g.caller.Device):
		return noSession
	}
	g.caller, g.asked = c, now
	return nil
}

// guarded is a reader that ends when its caller's session does. extend, where set, is
// told until when the next read may take.
type guarded struct {
	ctx    context.Context
	g      *guard
	r      io.Reader
	extend func(time.Time) error
}

func (g *guarded) Read(p []byte) (int, error) {
	if err := g.g.check(g.ctx); err != nil {
		return 0, err
	}
	if g.extend != nil {
		end := g.g.now().Add(stall)
		if g.g.caller.Expires.Before(end) {
			end = g.g.caller.Expires
		}
		if err := g.extend(end); err != nil {
			return 0, err
		}
	}
	return g.r.Read(p)
}
