package peers

import (
	"bytes"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"
)

func TestViewDoesNotChange(t *testing.T) {
	c := newCluster(t)
	enrol(c, "alice", "laptop")
	v := c.View()
	select {
	case <-v.Changed():
		t.Fatal("changed already")
	default:
	}
	var before, after bytes.Buffer
	v.WriteTo(&before)
	u, _ := enrol(c, "bob", "laptop")
	must(c, UserRemove{id("alice")})
	v.WriteTo(&after)
	if !bytes.Equal(before.Bytes(), after.Bytes()) {
		t.Error("a view has changed")
	}
	select {
	case <-v.Changed():
	default:
		t.Error("the change is not told")
	}
	var names []string
	for u := range v.Users() {
		names = append(names, u.Name)
	}
	if !slices.Equal(names, []string{"alice"}) || v.User(u.ID) != nil || c.View().User(u.ID) == nil {
		t.Errorf("users of the old view are %v", names)
	}
}

func TestEmptyView(t *testing.T) {
	v := New().View()
	if _, ok := v.Settings(); ok || v.Policy() != nil || v.Index() != 0 || !v.Time().IsZero() ||
		v.DeviceByAddr(netip.MustParseAddr("10.77.0.2")) != nil || v.UserByName("") != nil || len(v.Audit(0, 10)) != 0 {
		t.Error("an empty state has something")
	}
}

func TestOrderOfLists(t *testing.T) {
	c := newCluster(t)
	for _, name := range []string{"carol", "Bob", "alice", "al"} {
		must(c, UserAdd{id(name), name, nil})
	}
	for _, name := range []string{"phone", "Laptop", "phone2", "a"} {
		must(c, DeviceAdd{id("al"), device("al", name)})
	}
	must(c, DeviceAdd{id("alice"), device("alice", "b")})
	var users, devices []string
	for u := range c.View().Users() {
		users = append(users, u.Name)
	}
	for d := range c.View().DevicesOf(id("al")) {
		devices = append(devices, d.Name)
	}
	if got := fmt.Sprint(users, devices); got != "[al alice Bob carol] [a Laptop phone phone2]" {
		t.Errorf("the order is %s", got)
	}
	if n := len(slices.Collect(c.View().Devices())); n != 5 {
		t.Errorf("%d devices", n)
	}
	for range c.View().Users() {
		break // a loop may end early
	}
}

func TestTouched(t *testing.T) {
	c := newCluster(t, "10.0.0.0/8")
	v0 := c.View()
	if tt, ok := v0.Touched(v0); !ok || tt.Devices != nil || tt.Policy || tt.Settings {
		t.Errorf("nothing happened: %+v %v", tt, ok)
	}
	_, a := enrol(c, "alice", "laptop")
	v1 := c.View()
	_, b := enrol(c, "bob", "laptop")
	c.now = c.now.Add(time.Minute)
	must(c, Login{a.ID, c.step(0)})
	must(c, Login{b.ID, c.step(0)})
	v2 := c.View()
	if tt, ok := v2.Touched(v1); !ok || !slices.Equal(tt.Devices, []ID{b.ID, a.ID}) || tt.Policy || tt.Settings {
		t.Errorf("touched %+v %v", tt, ok)
	}
	if tt, ok := v1.Touched(v0); !ok || !slices.Equal(tt.Devices, []ID{a.ID}) {
		t.Errorf("between older views: %+v %v", tt, ok)
	}
	if _, ok := v1.Touched(v2); ok {
		t.Error("the future is known")
	}
	must(c, Failure{id("alice")})
	if tt, ok := c.View().Touched(v2); !ok || len(tt.Devices) != 0 {
		t.Errorf("a failure touches %+v %v", tt, ok)
	}
	// What happened too long ago is no longer known, in whole commands.
	v3 := c.View()
	for range journalLen {
		c.now = c.now.Add(30 * time.Second)
		must(c, Login{a.ID, c.step(0)})
		c.log = c.log[:0]
	}
	if tt, ok := c.View().Touched(v3); !ok || !slices.Equal(tt.Devices, []ID{a.ID}) {
		t.Errorf("the last %d: %v %v", journalLen, tt, ok)
	}
	if _, ok := c.View().Touched(v1); ok {
		t.Error("what is forgotten is said to be known")
	}
	v4 := c.View()
	if err := c.Restore(bytes.NewReader(c.snapshot())); err != nil {
		t.Fatal(err)
	}
	if _, ok := c.View().Touched(v4); ok {
		t.Error("over a restore is said to be known")
	}
	v5 := c.View()
	must(c, DeviceEnable{b.ID, false})
	if tt, ok := c.View().Touched(v5); !ok || !slices.Equal(tt.Devices, []ID{b.ID}) || tt.Policy || tt.Settings {
		t.Errorf("after a restore: %+v %v", tt, ok)
	}
}

func TestReadersBesideApply(t *testing.T) {
	c := newCluster(t, "10.0.0.0/8")
	enrol(c, "user-0", "phone")
	done := make(chan struct{})
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
				}
				v := c.View()
				users, devices, _ := v.Counts()
				n := 0
				for d := range v.Devices() {
					if v.User(d.User) == nil || v.DeviceByAddr(d.Addrs[0]) != d {
						t.Errorf("view %d is not consistent", v.Index())
					}
					n++
				}
				if n != devices || users < devices {
					t.Errorf("view %d has %d devices, and counts %d", v.Index(), n, devices)
				}
				v.Touched(v)
				if _, err := v.WriteTo(io.Discard); err != nil {
					t.Error(err)
				}
			}
		})
	}
	for i := range 200 {
		enrol(c, number("user", i+1), "phone")
	}
	close(done)
	wg.Wait()
}
