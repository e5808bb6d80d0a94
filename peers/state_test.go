package peers

import (
	"testing"
	"time"
)

func TestFromEnrolmentToSession(t *testing.T) {
	c := newCluster(t)
	u, d := enrol(c, "alice", "laptop")
	if got := addresses(d.Addrs); got != "10.77.0.2,fd00:77::2" {
		t.Errorf("the first device has the addresses %s", got)
	}
	c.now = c.now.Add(time.Minute)
	r := must(c, Login{d.ID, c.step(0)})
	if want := c.now.Add(12 * time.Hour); !r.Session.Until.Equal(want) {
		t.Errorf("the session ends at %v, want %v", r.Session.Until, want)
	}
	refused(c, Login{d.ID, c.step(0)}, ErrCodeUsed)
	v := c.View()
	for _, a := range d.Addrs {
		if v.DeviceByAddr(a) != v.Device(d.ID) {
			t.Errorf("no device has %s", a)
		}
	}
	if v.UserByName("ALICE").ID != u.ID || v.DeviceByName(u.ID, "LapTop").ID != d.ID || v.DeviceByKey(d.PublicKey).ID != d.ID {
		t.Error("a look-up by name or key fails")
	}
	if users, devices, sessions := v.Counts(); users != 1 || devices != 1 || sessions != 1 {
		t.Errorf("counts are %d %d %d", users, devices, sessions)
	}
}
