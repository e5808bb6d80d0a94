package peers

import (
	"testing"
	"time"
)

func TestInvitationAddReplacesTheUnusedOne(t *testing.T) {
	c := newCluster(t)
	u, _ := enrol(c, "alice", "laptop")
	must(c, InvitationAdd{u.ID, invitation("second")})
	must(c, InvitationAdd{u.ID, invitation("third")})
	var left []ID
	for i := range c.View().InvitationsOf(u.ID) {
		left = append(left, i.ID)
	}
	if len(left) != 2 || c.View().Invitation(invitation("second").ID) != nil {
		t.Errorf("invitations: %v; want the used one and the third", left)
	}
	refused(c, EnrolBegin{invitation("second").ID, hash("browser"), Sealed("secret")}, ErrNotFound)
	refused(c, InvitationAdd{id("nobody"), invitation("fourth")}, ErrNotFound)
	refused(c, InvitationAdd{u.ID, invitation("third")}, ErrExists)
	must(c, InvitationRemove{invitation("third").ID})
	refused(c, InvitationRemove{invitation("third").ID}, ErrNotFound)
	refused(c, EnrolFinish{invitation("third").ID, hash("browser"), c.step(1), device("alice", "phone")}, ErrNotFound)
}

func TestUsedInvitationIsKeptForAnHour(t *testing.T) {
	c := newCluster(t)
	enrol(c, "alice", "laptop")
	c.now = c.now.Add(time.Hour - time.Nanosecond)
	must(c, Expire{})
	if c.View().InvitationByHash(invitation("alice").Hash) == nil {
		t.Error("it is forgotten too early")
	}
	c.now = c.now.Add(time.Nanosecond)
	if r := must(c, Expire{}); r.Count != 1 || c.View().InvitationByHash(invitation("alice").Hash) != nil {
		t.Error("it is not forgotten")
	}
}

// What lies beyond the years of the encoding is not written as another time.
func TestInvitationOfAFarYear(t *testing.T) {
	for _, b := range []Body{InvitationAdd{Invitation: NewInvitation{Expires: time.Date(3000, 1, 1, 0, 0, 0, 0, time.UTC)}}} {
		if raw, err := Encode(Command{Request: id("far"), Body: b}); err == nil {
			t.Errorf("%T is encoded as %x", b, raw)
		}
	}
}

// A time that no clock shows is refused where the command is made, by its own words.
func TestInvitationOfNoTime(t *testing.T) {
	never := time.Date(40000, 1, 1, 0, 0, 0, 0, time.UTC)
	want := checkTime(never)
	if _, err := (NewInvitation{Expires: never}).MarshalCBOR(); want == nil || err == nil || err.Error() != want.Error() {
		t.Errorf("%v, want %v", err, want)
	}
}
