package doctor

import (
	"context"
	"slices"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"vpnd/internal/dataplane"
	vpnv1 "vpnd/proto/vpn/v1"
)

// LastOutside is the device that shook hands last from a foreign address; nil: none.
func (g *Gateway) LastOutside() *vpnv1.Outside {
	own, _ := ownAddrs(g.Interface)
	var last dataplane.PeerStats
	var out *vpnv1.Outside
	for d := range g.View.Devices() {
		p, ok := g.Plane.Peers[dataplane.Key(d.PublicKey)]
		a := p.Endpoint.Addr().Unmap()
		if !ok || p.LastHandshake.IsZero() || !foreign(a) || slices.Contains(own, a) || !p.LastHandshake.After(last.LastHandshake) {
			continue
		}
		name := d.Name
		if u := g.View.User(d.User); u != nil {
			name = u.Name + "/" + name
		}
		s := g.View.Session(d.ID)
		last = p
		out = &vpnv1.Outside{Device: name, Address: a.String(), HandshakeAt: timestamppb.New(p.LastHandshake),
			Received: p.Received, SignedIn: s != nil && g.Now.Before(s.Until)}
	}
	return out
}

// Outside says by evidence whether the gateway is reached from outside: nothing inside can
// tell.
func (g *Gateway) Outside(context.Context) []*Finding {
	o := g.LastOutside()
	if o == nil {
		return []*Finding{find("outside_unknown")}
	}
	return []*Finding{find("outside_seen", "device", o.Device, "address", o.Address, "at", o.HandshakeAt.AsTime().Format(time.DateTime+" UTC"))}
}
