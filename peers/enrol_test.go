package peers

import (
	"errors"
	"testing"
	"time"
)

func TestEnrolBeginBelongsToABrowser(t *testing.T) {
	c := newCluster(t)
	inv := invitation("alice")
	must(c, UserAdd{id("alice"), "alice", &inv})
	refused(c, EnrolFinish{inv.ID, hash("one"), c.step(0), device("alice", "laptop")}, ErrNotEnrolled)
	refused(c, EnrolBegin{inv.ID, [32]byte{}, Sealed("s")}, ErrInvalid)
	refused(c, EnrolBegin{inv.ID, hash("one"), nil}, ErrInvalid)
	if r := must(c, EnrolBegin{inv.ID, hash("one"), Sealed("first")}); string(r.Invitation.Pending) != "first" {
		t.Fatalf("pending: %q", r.Invitation.Pending)
	}
	if r := must(c, EnrolBegin{inv.ID, hash("one"), Sealed("ignored")}); string(r.Invitation.Pending) != "first" {
		t.Errorf("the same browser gets %q", r.Invitation.Pending)
	}
	if r := must(c, EnrolBegin{inv.ID, hash("two"), Sealed("second")}); string(r.Invitation.Pending) != "second" {
		t.Errorf("another browser gets %q", r.Invitation.Pending)
	}
	refused(c, EnrolFinish{inv.ID, hash("one"), c.step(0), device("alice", "laptop")}, ErrOtherBrowser)
	r := must(c, EnrolFinish{inv.ID, hash("two"), c.step(0), device("alice", "laptop")})
	if string(r.User.TOTP) != "second" || r.User.LastStep != c.step(0) {
		t.Errorf("the user is %+v", r.User)
	}
	if len(r.Invitation.Pending) != 0 || r.Invitation.Device != r.Device.ID || !r.Invitation.Used.Equal(c.now) {
		t.Errorf("the invitation is %+v", r.Invitation)
	}
	refused(c, EnrolBegin{inv.ID, hash("two"), Sealed("third")}, ErrUsed)
	// With an authenticator there is no secret to bind, and no browser to keep to.
	must(c, InvitationAdd{id("alice"), invitation("second")})
	if r := must(c, EnrolBegin{invitation("second").ID, hash("one"), Sealed("fourth")}); len(r.Invitation.Pending) != 0 || string(r.User.TOTP) != "second" {
		t.Errorf("an enrolled user gets %+v", r.Invitation)
	}
	refused(c, EnrolFinish{invitation("second").ID, hash("three"), c.step(0), device("alice", "phone")}, ErrCodeUsed)
	must(c, EnrolFinish{invitation("second").ID, hash("three"), c.step(1), device("alice", "phone")})
}

func TestEnrolFinishRepeats(t *testing.T) {
	c := newCluster(t)
	_, d := enrol(c, "alice", "laptop")
	inv := invitation("alice")
	before := c.contents()
	again := device("alice", "laptop")
	again.ID = id("of the repeat")
	refused(c, EnrolFinish{inv.ID, hash("another browser"), c.step(0), again}, ErrUsed)
	if r := must(c, EnrolFinish{inv.ID, hash("browser"), c.step(0), again}); r.Device != d || r.User == nil {
		t.Errorf("the repeat gets %+v", r.Device)
	}
	if string(before) != string(c.contents()) {
		t.Error("the repeat changes something")
	}
	refused(c, EnrolFinish{inv.ID, hash("browser"), c.step(1), device("alice", "phone")}, ErrUsed)
	must(c, DeviceRemove{d.ID})
	refused(c, EnrolFinish{inv.ID, hash("browser"), c.step(1), again}, ErrUsed)
}

func TestEnrolFinishRefusals(t *testing.T) {
	c := newCluster(t)
	_, d := enrol(c, "alice", "laptop")
	u, _ := enrol(c, "bob", "laptop")
	must(c, InvitationAdd{u.ID, invitation("second")})
	taken := device("bob", "phone")
	taken.PublicKey = d.PublicKey
	refused(c, EnrolFinish{invitation("second").ID, hash("b"), c.step(1), taken}, ErrKeyTaken)
	refused(c, EnrolFinish{invitation("second").ID, hash("b"), c.step(1), device("bob", "laptop")}, ErrExists)
	refused(c, EnrolFinish{invitation("second").ID, hash("b"), 0, device("bob", "phone")}, ErrInvalid)
	if owner := c.View().DeviceByKey(d.PublicKey).User; owner != id("alice") {
		t.Error("a key has moved to somebody else")
	}
	for range lockFailures {
		must(c, Failure{u.ID})
	}
	refused(c, EnrolFinish{invitation("second").ID, hash("b"), c.step(1), device("bob", "phone")}, ErrLocked)
	c.now = start.Add(48 * time.Hour)
	refused(c, EnrolFinish{invitation("second").ID, hash("b"), c.step(1), device("bob", "phone")}, ErrExpired)
	refused(c, EnrolBegin{invitation("second").ID, hash("b"), Sealed("s")}, ErrExpired)
	must(c, UserEnable{u.ID, false})
	must(c, InvitationAdd{u.ID, NewInvitation{id("x"), hash("x"), c.now.Add(time.Hour)}})
	refused(c, EnrolFinish{id("x"), hash("b"), c.step(1), device("bob", "phone")}, ErrDisabled)
}

func TestOfManyRedeemersOneWins(t *testing.T) {
	c := newCluster(t)
	inv := invitation("alice")
	must(c, UserAdd{id("alice"), "alice", &inv})
	must(c, EnrolBegin{inv.ID, hash("browser"), Sealed("secret")})
	won := 0
	for i := range 100 {
		r := c.do(EnrolFinish{inv.ID, hash("browser"), c.step(int64(i)), device("alice", number("device", i))})
		switch {
		case r.Err == nil:
			won++
		case !errors.Is(r.Err, ErrUsed):
			t.Errorf("redeemer %d: %v", i, r.Err)
		}
	}
	if _, devices, _ := c.View().Counts(); won != 1 || devices != 1 {
		t.Errorf("%d redeemers won, %d devices were added", won, devices)
	}
}
