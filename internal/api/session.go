package api

import (
	"context"
	"net/netip"

	"vpnd/internal/control"
	"vpnd/peers"
	vpnv1 "vpnd/proto/vpn/v1"
)

// sessionServer decodes, calls and encodes for SessionService.
type sessionServer struct {
	vpnv1.UnimplementedSessionServiceServer
	*Edge
}

// ListSessions returns the live sessions, by end.
func (g sessionServer) ListSessions(_ context.Context, r *vpnv1.ListSessionsRequest) (*vpnv1.ListSessionsResponse, error) {
	v := g.s.View()
	now := g.s.Time(v)
	out := &vpnv1.ListSessionsResponse{}
	var only *peers.User
	if name := r.GetUser(); name != "" {
		var err error
		if only, err = control.UserNamed(v, name); err != nil {
			return nil, err
		}
	}
	for ss := range v.Sessions() {
		if now.Before(ss.Until) && (only == nil || only.ID == ss.User) {
			out.Sessions = append(out.Sessions, protoSession(v, ss))
		}
	}
	return out, nil
}

// EndSessions ends sessions.
func (g sessionServer) EndSessions(ctx context.Context, r *vpnv1.EndSessionsRequest) (*vpnv1.EndSessionsResponse, error) {
	var device, user string
	switch w := r.GetWhich().(type) {
	case *vpnv1.EndSessionsRequest_Device:
		device = w.Device
	case *vpnv1.EndSessionsRequest_User:
		user = w.User
	}
	// An empty name must not come to mean "all".
	if device == "" && user == "" && !r.GetAll() {
		return nil, control.Refuse("sessions_of_whom")
	}
	n, closed, err := g.s.EndSessions(ctx, device, user)
	if err != nil {
		return nil, err
	}
	return &vpnv1.EndSessionsResponse{Ended: int32(n), Closed: protoClosed(closed)}, nil
}

// whoIsServer decodes, calls and encodes for WhoIsService.
type whoIsServer struct {
	vpnv1.UnimplementedWhoIsServiceServer
	*Edge
}

// WhoIs names the holder of a tunnel address.
func (g whoIsServer) WhoIs(ctx context.Context, r *vpnv1.WhoIsRequest) (*vpnv1.WhoIsResponse, error) {
	a, err := netip.ParseAddr(r.GetAddress())
	if err != nil || a.Zone() != "" {
		return nil, control.Refuse("address_invalid", short(r.GetAddress()))
	}
	w, err := g.s.WhoIs(ctx, a)
	if err != nil {
		return nil, err
	}
	return &vpnv1.WhoIsResponse{
		User: w.User, Device: w.Device, Address: w.Address.String(), Tags: w.Tags, SessionExpiresAt: timestamp(w.Expires),
	}, nil
}
