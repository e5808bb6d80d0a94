package peers

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestLoginRenewsAndReplaces(t *testing.T) {
	c := newCluster(t)
	u, d := enrol(c, "alice", "laptop")
	refused(c, Login{id("nothing"), c.step(1)}, ErrNotFound)
	refused(c, Login{d.ID, 0}, ErrInvalid)
	refused(c, Login{d.ID, c.step(0)}, ErrCodeUsed) // spent at enrolment
	refused(c, Login{d.ID, c.step(-1)}, ErrCodeUsed)
	c.now = c.now.Add(time.Minute)
	first := must(c, Login{d.ID, c.step(0)})
	if s := first.Session; len(s.Codes) != 1 || s.Codes[0].Serial != 1 || !s.Started.Equal(c.now) || first.User.LastStep != c.step(0) || first.Device.ID != d.ID {
		t.Errorf("the session is %+v", s)
	}
	c.now = c.now.Add(time.Hour)
	second := must(c, Login{d.ID, c.step(0)})
	if s := second.Session; len(s.Codes) != 2 || s.Codes[1].Serial != 2 || !s.Started.Equal(first.Session.Started) || !s.Until.Equal(c.now.Add(12*time.Hour)) {
		t.Errorf("the renewed session is %+v", s)
	}
	if len(first.Session.Codes) != 1 {
		t.Error("the renewal changed a session that was handed out")
	}
	// A shorter length of the settings holds from the next code on.
	hour := time.Hour
	must(c, Configure{Session: &hour})
	if !c.View().Session(d.ID).Until.Equal(second.Session.Until) {
		t.Error("a setting changes a session that runs")
	}
	// Ended to the nanosecond: the old codes are gone.
	c.now = second.Session.Until
	third := must(c, Login{d.ID, c.step(0)})
	if s := third.Session; len(s.Codes) != 1 || s.Codes[0].Serial != 3 || !s.Started.Equal(c.now) || !s.Until.Equal(c.now.Add(time.Hour)) {
		t.Errorf("the session after the end is %+v", s)
	}
	if _, _, sessions := c.View().Counts(); sessions != 1 {
		t.Errorf("%d sessions", sessions)
	}
	// Two devices of one user share her steps.
	must(c, DeviceAdd{u.ID, device("alice", "phone")})
	refused(c, Login{id("alice/phone"), c.step(0)}, ErrCodeUsed)
	must(c, Login{id("alice/phone"), c.step(1)})
}

func TestLoginWithoutAuthenticator(t *testing.T) {
	c := newCluster(t)
	must(c, UserAdd{id("alice"), "alice", nil})
	must(c, DeviceAdd{id("alice"), device("alice", "laptop")})
	refused(c, Login{id("alice/laptop"), c.step(0)}, ErrNotEnrolled)
}

func TestSerialsBeginAgainAtOne(t *testing.T) {
	c := newCluster(t)
	_, d := enrol(c, "alice", "laptop")
	v := *c.View()
	v.m.Serial = maxSerial - 1
	c.now = c.now.Add(time.Minute)
	c.publish(newView(v.db, v.m, v.journal))
	if s := must(c, Login{d.ID, c.step(0)}).Session; s.Codes[0].Serial != maxSerial {
		t.Errorf("the serial is %#x", s.Codes[0].Serial)
	}
	if s := must(c, Login{d.ID, c.step(1)}).Session; s.Codes[1].Serial != 1 {
		t.Errorf("the serial after the last is %#x", s.Codes[1].Serial)
	}
}

func TestCodesAreBounded(t *testing.T) {
	var codes []Code
	at := start
	for i := range 3 * maxCodes {
		// Gaps of a minute, but for one of an hour.
		at = at.Add(time.Minute)
		if i == maxCodes {
			at = at.Add(time.Hour)
		}
		codes = prune(append(codes, Code{uint32(i + 1), at}))
	}
	if len(codes) != maxCodes || codes[0].Serial != 1 || codes[len(codes)-1].Serial != 3*maxCodes {
		t.Fatalf("%d codes from %d to %d", len(codes), codes[0].Serial, codes[len(codes)-1].Serial)
	}
	if !slices.IsSortedFunc(codes, func(a, b Code) int { return a.At.Compare(b.At) }) {
		t.Error("out of order")
	}
	wide := 0
	for i := 1; i < len(codes); i++ {
		switch gap := codes[i].At.Sub(codes[i-1].At); {
		case gap >= time.Hour:
			wide++
		case gap > 5*time.Minute:
			t.Errorf("a gap of %s has come to be", gap)
		}
	}
	if wide != 1 {
		t.Errorf("%d wide gaps, want the one there was", wide)
	}
}

func TestSessionEnd(t *testing.T) {
	c := newCluster(t)
	var devices []*Device
	for _, user := range []string{"alice", "bob", "carol"} {
		u, d := enrol(c, user, "laptop")
		must(c, DeviceAdd{u.ID, device(user, "phone")})
		devices = append(devices, d)
	}
	c.now = c.now.Add(time.Minute)
	signIn := func() {
		for i, user := range []string{"alice", "bob", "carol"} {
			must(c, Login{devices[i].ID, c.step(0)})
			must(c, Login{id(user + "/phone"), c.step(1)})
		}
		c.now = c.now.Add(time.Minute)
	}
	signIn()
	if r := must(c, SessionEnd{Device: devices[0].ID}); r.Count != 1 || r.Session.Device != devices[0].ID || r.User.Name != "alice" {
		t.Errorf("ended %+v", r)
	}
	if r := must(c, SessionEnd{Device: devices[0].ID}); r.Count != 0 {
		t.Errorf("ended %d again", r.Count)
	}
	if r := must(c, SessionEnd{User: id("bob")}); r.Count != 2 {
		t.Errorf("ended %d of bob's", r.Count)
	}
	if _, _, left := c.View().Counts(); left != 3 {
		t.Errorf("%d are left", left)
	}
	refused(c, SessionEnd{Device: id("nothing")}, ErrNotFound)
	refused(c, SessionEnd{User: id("nobody")}, ErrNotFound)
	refused(c, SessionEnd{Device: devices[0].ID, User: id("bob")}, ErrInvalid)
	if r := must(c, SessionEnd{}); r.Count != 3 {
		t.Errorf("ended %d", r.Count)
	}
	signIn()
	v := c.View()
	c.now = c.now.Add(-time.Hour) // to before their beginning
	if r := must(c, TimeReset{}); r.Count != 6 {
		t.Errorf("a reset of time ended %d", r.Count)
	}
	if !c.View().Time().Equal(c.now) {
		t.Errorf("the time is %v, want %v", c.View().Time(), c.now)
	}
	if tt, ok := c.View().Touched(v); !ok || len(tt.Devices) != 6 {
		t.Errorf("touched %d %v", len(tt.Devices), ok)
	}
}

func TestExpire(t *testing.T) {
	c := newCluster(t, "10.0.0.0/8")
	const n = maxExpire + 10
	for i := range n {
		user := number("user", i)
		enrol(c, user, "laptop")
		must(c, Login{id(user + "/laptop"), c.step(1)})
	}
	first := slices.Collect(c.View().Sessions())[0]
	for range 2 {
		c.now = first.Until.Add(-time.Nanosecond)
		for must(c, Expire{}).Count > 0 { // the invitations
		}
		if _, _, left := c.View().Counts(); left != n {
			t.Fatalf("a session was removed before its end")
		}
	}
	v := c.View()
	must(c, Expire{})
	if c.View().Audit(v.Index(), 1) != nil {
		t.Error("nothing expired, and it is audited")
	}
	c.now = first.Until
	if r := must(c, Expire{}); r.Count != maxExpire {
		t.Errorf("%d expired at once", r.Count)
	}
	if r := must(c, Expire{}); r.Count != n-maxExpire {
		t.Errorf("%d expired", r.Count)
	}
	if r := must(c, Expire{}); r.Count != 0 {
		t.Errorf("%d expired again", r.Count)
	}
	e := c.View().Audit(0, 1)[0]
	if e.Action != "session.expire" || !strings.Contains(e.Detail, fmt.Sprint(n-maxExpire)) {
		t.Errorf("the entry is %+v", e)
	}
}

// The entry counts the sessions that ended as soon as there is more than one.
func TestTwoExpire(t *testing.T) {
	for n, want := range map[int]string{1: "", 2: "2 sessions in all"} {
		c := newCluster(t)
		for i := range n {
			_, d := enrol(c, fmt.Sprint("user", i), "laptop")
			c.now = c.now.Add(time.Minute)
			must(c, Login{d.ID, c.step(0)})
		}
		c.now = c.now.Add(13 * time.Hour)
		for must(c, Expire{}).Count > 0 {
		}
		for _, e := range c.View().Audit(0, 10) {
			if e.Action == "session.expire" && e.Detail != want {
				t.Errorf("%d sessions: the entry says %q, want %q", n, e.Detail, want)
			}
		}
	}
}
