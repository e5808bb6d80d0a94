package api

import (
	"testing"

	"google.golang.org/grpc/metadata"

	vpnv1 "vpnd/proto/vpn/v1"
)

// A request's id is made here. Whatever a client sends as one, its second request is not
// taken for a repeat of its first, which State would answer instead of carrying it out.
func TestRequestIDIsNotTheClients(t *testing.T) {
	w := newWorld(t)
	users := vpnv1.NewUserServiceClient(w.admin())
	ctx := metadata.AppendToOutgoingContext(t.Context(), "request-id", "1", "x-request-id", "1", "idempotency-key", "1")
	for _, name := range []string{"alice", "bob"} {
		r, err := users.AddUser(ctx, &vpnv1.AddUserRequest{Name: name})
		if err != nil || r.GetUser().GetName() != name {
			t.Errorf("%s: %v, %v", name, r.GetUser(), err)
		}
	}
}
