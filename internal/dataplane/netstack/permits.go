package netstack

import (
	"context"
	"slices"
	"time"

	"vpnd/internal/dataplane"
)

// Permits tells whether the first packet of a new flow would pass at this moment. It asks
// as begin does for packets, and begins nothing. A flow that the portal would catch does
// not pass: it does not come to where it is addressed.
func (p *Plane) Permits(ctx context.Context, f dataplane.Flow) (bool, error) {
	p.mu.Lock()
	closed := p.closed
	p.mu.Unlock()
	if closed {
		return false, ErrClosed
	}
	if err := ctx.Err(); err != nil {
		return false, err
	}
	return p.permits(f, time.Now()), nil
}

func (p *Plane) permits(f dataplane.Flow, now time.Time) bool {
	src := p.devices.get(f.Src)
	if src == nil || f.Src.Is4() != f.Dst.Is4() || !unicast(f.Dst) {
		return false
	}
	pk := packet{src: f.Src, dst: f.Dst, proto: f.Proto, dport: f.DstPort}
	switch {
	case f.Proto == protoTCP:
		pk.flags = flagSYN
	case f.Proto == protoICMP && f.Src.Is4(), f.Proto == protoICMPv6 && !f.Src.Is4():
		pk.kind = icmpEcho
	}
	begun := p.candidate(&pk, src, now)
	if begun == nil {
		return false
	}
	addressed := slices.Contains(p.near.Load().Addrs, f.Dst) && f.DstPort == portalPort
	return begun.kind != kindPortal || addressed
}
