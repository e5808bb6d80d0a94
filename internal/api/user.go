package api

import (
	"context"

	"vpnd/internal/control"
	"vpnd/peers"
	vpnv1 "vpnd/proto/vpn/v1"
)

// userServer decodes, calls and encodes for UserService.
type userServer struct {
	vpnv1.UnimplementedUserServiceServer
	*Edge
}

// userAfter describes a user after a change; she may have been removed since.
func (g userServer) userAfter(u *peers.User) *vpnv1.User {
	v := g.s.View()
	if now := v.User(u.ID); now != nil {
		u = now
	}
	return protoUser(v, u, g.s.Time(v))
}

// AddUser adds a user and returns her first invitation.
func (g userServer) AddUser(ctx context.Context, r *vpnv1.AddUserRequest) (*vpnv1.AddUserResponse, error) {
	valid, err := duration(r.GetValid(), "valid")
	if err != nil {
		return nil, err
	}
	u, inv, err := g.s.AddUser(ctx, r.GetName(), valid)
	if err != nil {
		return nil, err
	}
	return &vpnv1.AddUserResponse{User: g.userAfter(u), Invitation: g.protoInvitation(inv)}, nil
}

// ListUsers returns all users, by name.
func (g userServer) ListUsers(context.Context, *vpnv1.ListUsersRequest) (*vpnv1.ListUsersResponse, error) {
	v := g.s.View()
	now := g.s.Time(v)
	out := &vpnv1.ListUsersResponse{}
	for u := range v.Users() {
		out.Users = append(out.Users, protoUser(v, u, now))
	}
	return out, nil
}

// GetUser returns one user.
func (g userServer) GetUser(ctx context.Context, r *vpnv1.GetUserRequest) (*vpnv1.GetUserResponse, error) {
	v := g.s.View()
	u, err := control.UserNamed(v, r.GetName())
	if err != nil {
		return nil, err
	}
	var list []*peers.Device
	for d := range v.DevicesOf(u.ID) {
		list = append(list, d)
	}
	return &vpnv1.GetUserResponse{
		User: protoUser(v, u, g.s.Time(v)), Devices: g.describe(ctx, v, list, true),
	}, nil
}

// SetUserEnabled enables or disables a user.
func (g userServer) SetUserEnabled(ctx context.Context, r *vpnv1.SetUserEnabledRequest) (*vpnv1.SetUserEnabledResponse, error) {
	u, closed, err := g.s.SetUserEnabled(ctx, r.GetName(), r.GetEnabled())
	if err != nil {
		return nil, err
	}
	return &vpnv1.SetUserEnabledResponse{User: g.userAfter(u), Closed: protoClosed(closed)}, nil
}

// RemoveUser removes a user with her devices.
func (g userServer) RemoveUser(ctx context.Context, r *vpnv1.RemoveUserRequest) (*vpnv1.RemoveUserResponse, error) {
	n, closed, err := g.s.RemoveUser(ctx, r.GetName())
	if err != nil {
		return nil, err
	}
	return &vpnv1.RemoveUserResponse{Closed: protoClosed(closed), Devices: int32(n)}, nil
}

// UnlockUser lifts a lock that wrong codes have caused.
func (g userServer) UnlockUser(ctx context.Context, r *vpnv1.UnlockUserRequest) (*vpnv1.UnlockUserResponse, error) {
	u, err := g.s.UnlockUser(ctx, r.GetName())
	if err != nil {
		return nil, err
	}
	return &vpnv1.UnlockUserResponse{User: g.userAfter(u)}, nil
}

// ResetTotp takes the user's authenticator away and ends her sessions.
func (g userServer) ResetTotp(ctx context.Context, r *vpnv1.ResetTotpRequest) (*vpnv1.ResetTotpResponse, error) {
	valid, err := duration(r.GetValid(), "valid")
	if err != nil {
		return nil, err
	}
	inv, closed, err := g.s.ResetTOTP(ctx, r.GetName(), valid)
	if err != nil {
		return nil, err
	}
	return &vpnv1.ResetTotpResponse{Invitation: g.protoInvitation(inv), Closed: protoClosed(closed)}, nil
}

// InviteUser replaces the user's unused invitations by a new one.
func (g userServer) InviteUser(ctx context.Context, r *vpnv1.InviteUserRequest) (*vpnv1.InviteUserResponse, error) {
	valid, err := duration(r.GetValid(), "valid")
	if err != nil {
		return nil, err
	}
	inv, err := g.s.InviteUser(ctx, r.GetName(), valid)
	if err != nil {
		return nil, err
	}
	return &vpnv1.InviteUserResponse{Invitation: g.protoInvitation(inv)}, nil
}
