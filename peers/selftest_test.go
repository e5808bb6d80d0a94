package peers

import (
	"bytes"
	"slices"
	"strings"
	"testing"
	"time"
)

// A self-test has an address of its own for a minute, is no device, and uses no place up.
func TestSelfTestComesAndGoes(t *testing.T) {
	c := newCluster(t)
	enrol(c, "alice", "laptop")
	taken := c.View().DeviceByName(id("alice"), "laptop").Addrs
	next := c.View().m.NextHost
	must(c, SelfTestBegin{key("test")})
	tests := slices.Collect(c.View().SelfTests())
	if len(tests) != 1 || tests[0].PublicKey != key("test") || len(tests[0].Addrs) != len(taken) || slices.Contains(taken, tests[0].Addrs[0]) || !tests[0].End.Equal(c.now.Add(time.Minute)) {
		t.Fatalf("there is %+v", tests)
	}
	if _, devices, _ := c.View().Counts(); devices != 1 || c.View().DeviceByKey(key("test")) != nil || c.View().DeviceByAddr(tests[0].Addrs[0]) != nil {
		t.Error("it is taken for a device")
	}
	refused(c, SelfTestBegin{key("test")}, ErrKeyTaken)
	refused(c, DeviceAdd{id("alice"), NewDevice{id("thief"), "thief", nil, key("test"), Sealed("psk")}}, ErrKeyTaken)
	refused(c, SelfTestBegin{c.View().m.Settings.PublicKey}, ErrKeyTaken)
	refused(c, SelfTestBegin{c.View().DeviceByName(id("alice"), "laptop").PublicKey}, ErrKeyTaken)

	if r := must(c, SelfTestEnd{key("test")}); r.Count != 1 || c.View().m.NextHost != next {
		t.Errorf("%d ended, the next place is %d, was %d", r.Count, c.View().m.NextHost, next)
	}
	if r := must(c, SelfTestEnd{key("test")}); r.Count != 0 {
		t.Error("it ended twice")
	}

	// Whoever came meanwhile keeps its place, and the test's comes back when no new one is left.
	must(c, SelfTestBegin{key("another")})
	enrol(c, "bob", "phone")
	c.now = c.now.Add(time.Minute - time.Second)
	if r := must(c, Expire{}); r.Count != 0 {
		t.Error("it ended early")
	}
	c.now = c.now.Add(time.Second)
	if r := must(c, Expire{}); r.Count != 1 || len(slices.Collect(c.View().SelfTests())) != 0 || c.View().m.selfTests != 0 {
		t.Errorf("%d ended by time", r.Count)
	}
	if r := first[released](c.View(), tableReleased, byID); r == nil || r.Host != next {
		t.Errorf("released is %+v, want %d", r, next)
	}
	if n := len(slices.DeleteFunc(slices.Clone(c.View().Audit(0, 0)), func(e Entry) bool { return e.Action != "gateway.selftest" })); n != 2 {
		t.Errorf("the audit log has %d lines of two tests", n)
	}
}

func TestSelfTestBounds(t *testing.T) {
	c := newCluster(t)
	refused(c, SelfTestBegin{}, ErrInvalid)
	for i := range maxSelfTests {
		must(c, SelfTestBegin{key(number("test", i))})
	}
	refused(c, SelfTestBegin{key("more")}, ErrLimit)
	must(c, TimeReset{})
	if len(slices.Collect(c.View().SelfTests())) != 0 {
		t.Error("they outlive a reset of the clock")
	}
	must(c, SelfTestBegin{key("more")})

	small := newCluster(t, "10.0.0.0/29", "fd00::/125")
	enrol(small, "alice", "laptop")
	must(small, SelfTestBegin{key("test")})
	refused(small, SelfTestBegin{key("more")}, ErrFull)
}

// Below level 4 there is none, and no snapshot has one.
func TestSelfTestNeedsItsLevel(t *testing.T) {
	c := emptyCluster(t)
	must(c, Init{settings(), "{}"})
	must(c, Upgrade{Level: levelVault})
	for _, b := range []Body{SelfTestBegin{key("test")}, SelfTestEnd{key("test")}} {
		refused(c, b, ErrLevel)
	}
	must(c, Upgrade{Level: levelSelfTest})
	must(c, SelfTestBegin{key("test")})
	p := split(t, c.snapshot())
	p.header.Format = levelVault
	if err := New().Restore(bytes.NewReader(p.edit(nil))); err == nil || !strings.Contains(err.Error(), "self-test") {
		t.Errorf("a self-test below its level: %v", err)
	}
	for want, x := range map[string]selfTest{
		"place": {key("test"), 1, stampOf(c.now)}, "no time": {key("test"), 5, 0}, "low_order": {Key{}, 5, stampOf(c.now)},
	} {
		s, _ := c.View().Settings()
		if err := checkSelfTest(&x, &s); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v", x, err)
		}
	}
	restored := New()
	if err := restored.Restore(bytes.NewReader(c.snapshot())); err != nil || restored.View().m.selfTests != 1 || !bytes.Equal(snapshotOf(t, restored), c.snapshot()) {
		t.Errorf("restored: %v", err)
	}
}
