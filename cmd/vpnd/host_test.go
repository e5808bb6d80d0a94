package main

import (
	"os"
	"testing"
)

// vpnd without root starts beside the group vpnd of an installed package, of which its
// user is no member: it must see that it cannot give that group the socket.
func TestMayGive(t *testing.T) {
	const other = 54321
	if got, want := mayGive(other), os.Geteuid() == 0; got != want {
		t.Errorf("a group that this user is not in: %v", got)
	}
	if !mayGive(os.Getegid()) {
		t.Error("the user's own group")
	}
}
