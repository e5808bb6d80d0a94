package peers

import (
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"vpnd/acl/rules"
)

func TestSubject(t *testing.T) {
	c := newCluster(t)
	u := must(c, UserAdd{id("alice"), "Alice", nil}).User
	n := device("Alice", "db")
	n.Tags = []string{"tag:db"}
	d := must(c, DeviceAdd{u.ID, n}).Device
	want := rules.Subject{Device: "Alice/db", User: "Alice", Tags: []string{"tag:db"}, Addrs: d.Addrs}
	if got, ok := c.View().Subject(d); !ok || !cmp.Equal(got, want, cmpopts.EquateComparable(netip.Addr{})) {
		t.Errorf("got %+v %v, want %+v", got, ok, want)
	}
	absent := func(when string, d *Device) {
		t.Helper()
		if s, ok := c.View().Subject(d); ok {
			t.Errorf("%s it is %+v", when, s)
		}
	}
	absent("without a device", nil)
	absent("disabled", must(c, DeviceEnable{d.ID, false}).Device)
	d = must(c, DeviceEnable{d.ID, true}).Device
	must(c, UserEnable{u.ID, false})
	absent("with its owner disabled", d)
	must(c, UserRemove{u.ID})
	absent("with its owner gone", d)

	s := settings()
	if got := c.View().PolicyOptions(); got.Session != s.Session || len(got.Network) != 2 || addresses(got.Gateway) != "10.77.0.1,fd00:77::1" {
		t.Errorf("the options are %+v", got)
	}
}
