package peers

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strings"
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

func TestAudit(t *testing.T) {
	c := newCluster(t)
	for i := range maxAudit + 5 {
		must(c, Note{"n", fmt.Sprint(i), ""})
		c.log = c.log[:0]
	}
	v := c.View()
	all := v.Audit(0, 0)
	if len(all) != maxAudit || all[len(all)-1].Target != fmt.Sprint(maxAudit+4) || all[0].Target != "5" {
		t.Errorf("%d entries are kept, %q to %q", len(all), all[0].Target, all[len(all)-1].Target)
	}
	newest := v.Audit(0, 3)
	if len(newest) != 3 || newest[2].Index != v.Index() || newest[0].Index != v.Index()-2 {
		t.Errorf("the newest are %+v", newest)
	}
	next := v.Audit(newest[0].Index, 1)
	if len(next) != 1 || next[0] != newest[1] {
		t.Errorf("the next is %+v", next)
	}
	if rest := v.Audit(v.Index(), 10); len(rest) != 0 {
		t.Errorf("after the last come %+v", rest)
	}
}

func TestAuditHoldsNoSecrets(t *testing.T) {
	c := newCluster(t)
	u, d := enrol(c, "alice", "laptop")
	must(c, DeviceRotate{d.ID, key("new"), Sealed("canary psk")})
	must(c, TOTPReset{u.ID})
	must(c, InvitationAdd{u.ID, invitation("second")})
	must(c, EnrolBegin{invitation("second").ID, hash("browser"), Sealed("canary TOTP")})
	all := fmt.Sprint(c.View().Audit(0, 0))
	for _, secret := range []string{"canary", "sealed", hex.EncodeToString([]byte("canary")), string(fmt.Appendf(nil, "%v", hash("second"))), fmt.Sprintf("%x", hash("second"))} {
		if strings.Contains(all, secret) {
			t.Errorf("the audit log holds %q", secret)
		}
	}
	for _, action := range []string{"cluster.init", "user.add", "enrol.begin", "device.enrol", "device.rotate", "user.reset-totp", "invitation.add"} {
		if !strings.Contains(all, action) {
			t.Errorf("the audit log has no %s", action)
		}
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

func TestRestoreRefuses(t *testing.T) {
	c := newCluster(t)
	enrol(c, "alice", "laptop")
	good := c.snapshot()
	s := New()
	if err := s.Restore(bytes.NewReader(good)); err != nil {
		t.Fatal(err)
	}
	view := s.View()
	future := slices.Clone(good)
	if future[1] != 1 || future[2] != snapshotFormat {
		t.Fatalf("the header begins with % x", future[:4])
	}
	future[2]++
	for name, b := range map[string][]byte{
		"nothing": nil, "garbage": []byte("garbage"), "a byte more": append(slices.Clone(good), 0), "a newer format": future,
	} {
		if err := s.Restore(bytes.NewReader(b)); err == nil {
			t.Errorf("%s is restored", name)
		}
	}
	for n := range good {
		if err := s.Restore(bytes.NewReader(good[:n])); err == nil {
			t.Fatalf("%d of %d bytes are restored", n, len(good))
		}
	}
	if s.View() != view {
		t.Error("a failed restore changes the state")
	}
	if err := s.Restore(io.MultiReader(bytes.NewReader(good[:7]), bytes.NewReader(good[7:]))); err != nil {
		t.Errorf("in two parts: %v", err)
	}
	select {
	case <-view.Changed():
	default:
		t.Error("a restore is not told")
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
