package api

import (
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	vpnv1 "vpnd/proto/vpn/v1"
)

// A method that is named otherwise than in the table is in no line of it, whatever the
// library makes of the name.
func TestMethodNamesThatAreNoPath(t *testing.T) {
	w := newWorld(t)
	cc := w.admin()
	for _, name := range []string{
		"vpn.v1.UserService/AddUser", "//vpn.v1.UserService/AddUser", "/vpn.v1.UserService/AddUser/", "/vpn.v1.UserService//AddUser",
		"/vpn.v1.userservice/AddUser", "/vpn.v1.UserService/addUser", "/vpn.v1.UserService/AddUser?x", "AddUser", "/", "",
	} {
		err := cc.Invoke(t.Context(), name, &vpnv1.AddUserRequest{Name: "mallory"}, &vpnv1.AddUserResponse{}, grpc.StaticMethod())
		switch status.Code(err) {
		case codes.PermissionDenied, codes.Unimplemented, codes.Internal, codes.InvalidArgument:
		default:
			t.Errorf("%q is answered %v", name, err)
		}
		if w.View().UserByName("mallory") != nil {
			t.Fatalf("%q added a user", name)
		}
	}
}
