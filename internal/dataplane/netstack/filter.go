package netstack

import (
	"encoding/binary"
	"net/netip"
	"slices"
	"time"
)

// action is what becomes of a packet.
type action uint8

const (
	drop    action = iota // silently
	refuse                // with an answer
	deliver               // to the stack
	forward               // to another device
	echo                  // answered by the gateway itself
	ping                  // carried by a ping socket of the host
)

// portalPort is the portal's port on the gateway's tunnel addresses.
const portalPort = 80

// inbound judges a packet that WireGuard has decrypted: p.src is an address of the
// peer that sent it. f is the flow it belongs to, if it passes.
func (p *Plane) inbound(pk *packet, now time.Time) (a action, f *flow) {
	src := p.devices.get(pk.src)
	if src == nil || !unicast(pk.dst) {
		return drop, nil
	}
	if pk.piece == laterPiece {
		return p.pieces.action(pk, now), nil
	}
	a, f = p.inboundHead(pk, src, now)
	if pk.piece == firstPiece {
		p.pieces.note(pk, a, f, now)
	}
	return a, f
}

// inboundHead judges a packet that has its transport header.
func (p *Plane) inboundHead(pk *packet, src *peer, now time.Time) (action, *flow) {
	if pk.kind == icmpError {
		return p.icmpErrorAction(pk, now), nil
	}
	if f := p.flows.get(pk.key()); f != nil && f.src == src {
		if p.allowed(f, now) {
			return p.pass(f, pk, true, now), f
		}
		// It was cut just now. A first packet may begin a new one.
	}
	if f := p.flows.get(pk.reply()); f != nil && f.kind == kindPeer && f.dst == src {
		if p.allowed(f, now) {
			return p.pass(f, pk, false, now), f
		}
		return refuse, nil
	}
	if !pk.opens() {
		if pk.kind == icmpEchoReply || pk.kind == icmpOther {
			return drop, nil
		}
		return refuse, nil
	}
	return p.begin(pk, src, now)
}

// begin admits the first packet of a flow, or refuses it.
func (p *Plane) begin(pk *packet, src *peer, now time.Time) (action, *flow) {
	f := p.candidate(pk, src, now)
	if f == nil {
		return refuse, nil
	}
	if pk.proto == protoTCP {
		f.isn = binary.BigEndian.Uint32(pk.b[pk.l4+4:])
	}
	if f.kind == kindPeer && pk.proto == protoTCP {
		f.cutters = []func(){func() { p.resetEnds(f) }}
	}
	g := p.flows.add(f)
	if g == nil {
		return refuse, nil
	}
	// A change between the verdict and the table would have missed this flow: judge now
	// that it can be found.
	if !p.rejudge(g, now) {
		return refuse, nil
	}
	return p.pass(g, pk, true, now), g
}

// candidate is the flow that a first packet may begin, not yet in the table; nil if it
// may begin none.
func (p *Plane) candidate(pk *packet, src *peer, now time.Time) *flow {
	gw := p.near.Load()
	f := &flow{key: pk.key(), src: src}
	f.began = now.UnixNano()
	f.seen.Store(f.began) // or the janitor takes it for idle before its first packet has passed
	s := src.session.Load()
	captive := pk.proto == protoTCP && s.open(now) == opening{}
	var own bool // the gateway's own address
	service := p.service(pk.dst)
	switch {
	case slices.Contains(gw.Addrs, pk.dst):
		own = true
		switch {
		case pk.proto == protoTCP && pk.dport == portalPort:
			f.kind = kindPortal
		case pk.proto == protoTCP && pk.dport == p.cfg.AppPort && p.cfg.AppPort != 0:
			f.kind = kindApp
		case pk.kind == icmpEcho:
			f.kind = kindGateway
		default:
			return nil
		}
	case service != nil:
		f.kind, f.service = kindService, service.Name
	case within(gw.Network, pk.dst):
		f.kind = kindPeer
		f.dst = p.devices.get(pk.dst)
	default:
		f.kind = kindResource
	}
	f.srcOpen = s.open(now)
	if f.dst != nil {
		f.dstOpen = f.dst.session.Load().open(now)
	}
	if f.kind != kindPortal && !p.admits(f, now) {
		if !captive || pk.dport != portalPort && !(own && pk.dport == p.cfg.AppPort) {
			return nil
		}
		f.kind, f.dst, f.dstOpen = kindPortal, nil, opening{}
	}
	return f
}

// admits says whether the flow f, not yet in the table, may begin.
func (p *Plane) admits(f *flow, now time.Time) bool {
	if f.kind == kindPeer && f.dst == nil {
		return false
	}
	if f.kind == kindResource {
		switch f.key.proto {
		case protoTCP, protoUDP:
		case protoICMP, protoICMPv6:
			if !p.pings(f.key.dst.Addr()) {
				return false
			}
		default:
			return false
		}
		if p.undialable(f.key.dst.Addr()) != nil {
			return false
		}
	}
	_, ok := p.judge(f, now)
	return ok
}

// pass notes a packet of f and says where it goes.
func (p *Plane) pass(f *flow, pk *packet, forwards bool, now time.Time) action {
	f.touch(forwards, now)
	switch f.kind {
	case kindPeer:
		f.track(pk, forwards)
		return forward
	case kindGateway:
		return echo
	case kindResource:
		if pk.kind == icmpEcho {
			return ping
		}
	}
	return deliver
}

// outbound judges a packet that the stack sends to a device.
func (p *Plane) outbound(pk *packet, now time.Time) bool {
	if p.devices.get(pk.dst) == nil {
		return p.devices.isLeaving(pk.dst) && pk.piece == whole && pk.proto == protoTCP && pk.flags&flagRST != 0
	}
	if pk.piece == laterPiece {
		return p.pieces.action(pk, now) == deliver
	}
	if pk.proto == protoTCP && pk.flags&flagRST != 0 {
		return true // it carries nothing, and ends what it belongs to
	}
	f := p.flows.get(pk.reply())
	ok := f != nil && p.allowed(f, now)
	if ok {
		f.touch(false, now)
	}
	if pk.piece == firstPiece {
		a := drop
		if ok {
			a = deliver
		}
		p.pieces.note(pk, a, f, now)
	}
	return ok
}

// unicast says whether a packet to a may be for anyone.
func unicast(a netip.Addr) bool {
	return !a.IsMulticast() && !a.IsUnspecified() && !a.IsLoopback() && a != netip.AddrFrom4([4]byte{255, 255, 255, 255})
}

// within says whether one of the prefixes contains a.
func within(ps []netip.Prefix, a netip.Addr) bool {
	for _, p := range ps {
		if p.Contains(a) {
			return true
		}
	}
	return false
}
