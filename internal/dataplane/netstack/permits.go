package netstack

import (
	"context"
	"slices"
	"time"

	"vpnd/internal/dataplane"
)

// Permits tells whether the first packet of a new flow would pass at this moment. It asks
// as begin and dialHost do for packets, and begins nothing. A flow that the portal would catch does
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
	switch f.Proto {
	case protoTCP:
		pk.flags = flagSYN
	case protoICMP, protoICMPv6:
		if (f.Proto == protoICMP) != f.Src.Is4() {
			return false // of the other family: parse drops it
		}
		pk.kind = icmpEcho
	}
	begun := p.candidate(&pk, src, now)
	if begun == nil {
		return false
	}
	switch begun.kind {
	case kindPortal:
		return f.DstPort == portalPort && slices.Contains(p.near.Load().Addrs, f.Dst)
	case kindService:
		network := "tcp"
		if f.Proto == protoUDP {
			network = "udp"
		}
		s := p.called(begun)
		return s != nil && p.dialer.May(network, s, callerOf(begun)) == nil
	case kindResource:
		return f.Proto != protoTCP && f.Proto != protoUDP || p.ownListener(begun.key.dst) == nil
	}
	return true
}
