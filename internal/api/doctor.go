package api

import (
	"context"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	vpnv1 "vpnd/proto/vpn/v1"
)

// Diagnose looks at the whole installation.
func (g gatewayServer) Diagnose(ctx context.Context, r *vpnv1.DiagnoseRequest) (*vpnv1.DiagnoseResponse, error) {
	if g.Doctor == nil {
		return nil, status.Error(codes.Unimplemented, "this gateway has no doctor")
	}
	return g.Doctor(ctx, r)
}
