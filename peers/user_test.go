package peers

import (
	"slices"
	"testing"
	"time"
)

func TestUserAdd(t *testing.T) {
	c := newCluster(t)
	inv := invitation("alice")
	r := must(c, UserAdd{id("alice"), "Alice", &inv})
	if r.User.Name != "Alice" || r.Invitation.User != r.User.ID || c.View().InvitationByHash(inv.Hash) != r.Invitation {
		t.Errorf("added %+v %+v", r.User, r.Invitation)
	}
	refused(c, UserAdd{id("bob"), "aLICE", nil}, ErrExists)
	refused(c, UserAdd{id("alice"), "bob", nil}, ErrExists)
	refused(c, UserAdd{ID{}, "bob", nil}, ErrInvalid)
	refused(c, UserAdd{id("bob"), "bob smith", nil}, ErrInvalid)
	refused(c, UserAdd{id("bob"), "bob", &inv}, ErrExists)
	late := invitation("bob")
	late.Expires = c.now
	refused(c, UserAdd{id("bob"), "bob", &late}, ErrInvalid)
	late = invitation("bob")
	late.Hash = [32]byte{}
	refused(c, UserAdd{id("bob"), "bob", &late}, ErrInvalid)
	if users, _, _ := c.View().Counts(); users != 1 {
		t.Errorf("%d users", users)
	}
}

func TestUserEnable(t *testing.T) {
	c := newCluster(t)
	u, d := enrol(c, "alice", "laptop")
	c.now = c.now.Add(time.Minute)
	must(c, Login{d.ID, c.step(0)})
	v := c.View()
	if r := must(c, UserEnable{u.ID, false}); r.Count != 1 || !r.User.Disabled {
		t.Errorf("disabling: %+v", r)
	}
	if c.View().Session(d.ID) != nil {
		t.Error("a disabled user's session lives")
	}
	if tt, _ := c.View().Touched(v); !slices.Equal(tt.Devices, []ID{d.ID}) {
		t.Errorf("touched %v", tt.Devices)
	}
	refused(c, Login{d.ID, c.step(1)}, ErrDisabled)
	must(c, InvitationAdd{u.ID, invitation("second")})
	refused(c, EnrolBegin{invitation("second").ID, hash("browser"), Sealed("secret")}, ErrDisabled)
	v = c.View()
	must(c, UserEnable{u.ID, false}) // already
	if c.View().Audit(v.Index(), 10) != nil {
		t.Error("an unchanged user is audited")
	}
	must(c, UserEnable{u.ID, true})
	must(c, Login{d.ID, c.step(1)})
	refused(c, UserEnable{id("nobody"), true}, ErrNotFound)
}

func TestUserRemove(t *testing.T) {
	c := newCluster(t)
	u, d := enrol(c, "alice", "laptop")
	c.now = c.now.Add(time.Minute)
	must(c, Login{d.ID, c.step(0)})
	must(c, DeviceAdd{u.ID, device("alice", "phone")})
	must(c, InvitationAdd{u.ID, invitation("second")})
	if r := must(c, UserRemove{u.ID}); r.Count != 2 {
		t.Errorf("%d devices went with her", r.Count)
	}
	v := c.View()
	if v.User(u.ID) != nil || v.UserByName("alice") != nil || v.Device(d.ID) != nil || v.Session(d.ID) != nil ||
		v.InvitationByHash(invitation("second").Hash) != nil || v.DeviceByAddr(d.Addrs[1]) != nil {
		t.Error("something of her is left")
	}
	if users, devices, sessions := v.Counts(); users+devices+sessions != 0 {
		t.Errorf("counts are %d %d %d", users, devices, sessions)
	}
	if !v.Retired(d.PublicKey) || !v.Retired(key("alice/phone")) {
		t.Error("a key left no tombstone")
	}
	refused(c, UserRemove{u.ID}, ErrNotFound)
	refused(c, UserAdd{ID{}, "alice", nil}, ErrInvalid)
	must(c, UserAdd{id("another alice"), "alice", nil})
	refused(c, DeviceAdd{id("another alice"), device("alice", "laptop")}, ErrKeyTaken)
}

func TestTOTPReset(t *testing.T) {
	c := newCluster(t)
	u, d := enrol(c, "alice", "laptop")
	c.now = c.now.Add(time.Minute)
	must(c, Login{d.ID, c.step(0)})
	must(c, Failure{u.ID})
	before := c.View().User(u.ID)
	r := must(c, TOTPReset{u.ID})
	if len(r.User.TOTP) != 0 || r.Count != 1 || c.View().Session(d.ID) != nil {
		t.Errorf("reset: %+v", r)
	}
	if r.User.LastStep != before.LastStep || r.User.Failures != 1 {
		t.Error("a reset forgets the last step or the failures")
	}
	refused(c, Login{d.ID, c.step(1)}, ErrNotEnrolled)
	must(c, InvitationAdd{u.ID, invitation("second")})
	must(c, EnrolBegin{invitation("second").ID, hash("browser"), Sealed("new secret")})
	// The step that was spent before the reset stays spent.
	refused(c, EnrolFinish{invitation("second").ID, hash("browser"), before.LastStep, device("alice", "phone")}, ErrCodeUsed)
	r = must(c, EnrolFinish{invitation("second").ID, hash("browser"), before.LastStep + 1, device("alice", "phone")})
	if string(r.User.TOTP) != "new secret" || r.User.Failures != 1 {
		t.Errorf("enrolled again: %+v", r.User)
	}
	// A secret that is pending at a reset is gone.
	must(c, InvitationAdd{u.ID, invitation("third")})
	must(c, TOTPReset{u.ID})
	must(c, EnrolBegin{invitation("third").ID, hash("browser"), Sealed("seen by someone")})
	must(c, TOTPReset{u.ID})
	refused(c, EnrolFinish{invitation("third").ID, hash("browser"), before.LastStep + 2, device("alice", "tablet")}, ErrNotEnrolled)
	refused(c, TOTPReset{id("nobody")}, ErrNotFound)
}
