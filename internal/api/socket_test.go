package api

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	vpnv1 "vpnd/proto/vpn/v1"
)

func TestListenControl(t *testing.T) {
	path := filepath.Join(t.TempDir(), "run", "control.sock")
	l, err := ListenControl(path)
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	if _, err := ListenControl(path); err == nil || !strings.Contains(err.Error(), "another vpnd answers") {
		t.Errorf("taken from one that answers: %v", err)
	}
	// A daemon that was killed leaves its socket.
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	l.Close()
	if l, err = ListenControl(path); err != nil {
		t.Fatalf("a stale socket stays in the way: %v", err)
	}
	l.Close()
	if _, err := os.Stat(path); !os.IsNotExist(err) {
		t.Errorf("left after Close: %v", err)
	}
	if err := os.WriteFile(path, []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := ListenControl(path); err == nil || !strings.Contains(err.Error(), "not a socket") {
		t.Errorf("another's file: %v", err)
	}
	if b, err := os.ReadFile(path); err != nil || string(b) != "mine" {
		t.Errorf("another's file is %q now, %v", b, err)
	}
	if _, err := ListenControl("/tmp/" + strings.Repeat("x", 120)); err == nil || !strings.Contains(err.Error(), "107") {
		t.Errorf("a path too long: %v", err)
	}
}

func TestListenWhoIs(t *testing.T) {
	w := newWorld(t)
	path := filepath.Join(t.TempDir(), "whois.sock")
	l, err := ListenWhoIs(path, os.Getegid())
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o660 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	cc := serve(t, w.edge.WhoIs(), l)
	p := w.enrolled("alice")
	me, err := vpnv1.NewWhoIsServiceClient(cc).WhoIs(t.Context(), &vpnv1.WhoIsRequest{Address: p.addr.String()})
	if err != nil || me.GetUser() != "alice" {
		t.Errorf("whois %v, %v", me, err)
	}
	if _, err := vpnv1.NewUserServiceClient(cc).ListUsers(t.Context(), &vpnv1.ListUsersRequest{}); status.Code(err) != codes.Unimplemented {
		t.Errorf("whois.sock lists users: %v", err)
	}
}
