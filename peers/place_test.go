package peers

import (
	"bytes"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"
)

// publish applies a policy with these resources, sorted.
func publish(c *cluster, names ...string) Result {
	return c.do(PolicyApply{Text: fmt.Sprintf("// %d\n{}", c.index), Base: c.View().Policy().Version, Resources: names})
}

func places(c *cluster) string {
	o := c.View().PolicyOptions()
	var out []string
	for name, addrs := range o.Services {
		out = append(out, name+" "+addresses(addrs))
	}
	slices.Sort(out)
	return strings.Join(out, "; ")
}

func TestPlaces(t *testing.T) {
	c := newCluster(t)
	expect := func(want string) {
		t.Helper()
		if got := places(c); got != want {
			t.Errorf("the places are %s\nwant %s", got, want)
		}
	}
	expect("")
	if r := publish(c, "db", "wiki"); r.Err != nil {
		t.Fatal(r.Err)
	}
	expect("db 10.77.128.1,fd00:77::8000:0:0:1; wiki 10.77.128.2,fd00:77::8000:0:0:2")
	before, err := c.View().PolicyOptionsFor([]string{"a", "wiki"})
	if err != nil || addresses(before.Services["a"]) != "10.77.128.3,fd00:77::8000:0:0:3" || addresses(before.Services["wiki"]) != "10.77.128.2,fd00:77::8000:0:0:2" {
		t.Errorf("before: %v, %v", before.Services, err)
	}
	publish(c, "a", "wiki")
	expect("a 10.77.128.3,fd00:77::8000:0:0:3; wiki 10.77.128.2,fd00:77::8000:0:0:2")
	// It comes back to where it was, also by hand of the clock.
	c.now = c.now.Add(90 * 24 * time.Hour)
	publish(c, "db")
	expect("db 10.77.128.1,fd00:77::8000:0:0:1")
	// A policy of the former kind has none.
	must(c, PolicyApplyV1{Text: "{ }", Base: c.View().Policy().Version})
	expect("")
	// One that is taken back brings them again.
	publish(c, "db", "x")
	v := c.View().Policy().Version
	must(c, PolicyApply{Text: "{  }", Base: v, For: time.Minute, Resources: []string{"y"}})
	must(c, PolicyRevert{Version: v + 1, Early: true})
	expect("db 10.77.128.1,fd00:77::8000:0:0:1; x 10.77.128.4,fd00:77::8000:0:0:4")
	if got := c.View().Policy().Resources; !slices.Equal(got, []string{"db", "x"}) {
		t.Errorf("the policy has %v", got)
	}

	for _, names := range [][]string{{"b", "a"}, {"a", "a"}, {""}, {strings.Repeat("x", 129)}} {
		if r := publish(c, names...); r.Err == nil {
			t.Errorf("%q are taken", names)
		}
	}

	// A snapshot has all of it.
	want := c.snapshot()
	if err := c.Restore(bytes.NewReader(want)); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(want, c.snapshot()) {
		t.Error("restored, the snapshot is another one")
	}
	expect("db 10.77.128.1,fd00:77::8000:0:0:1; x 10.77.128.4,fd00:77::8000:0:0:4")
	publish(c, "z")
	expect("z 10.77.128.6,fd00:77::8000:0:0:6")
}

// A place that has gone is given again when no new one is left: that which has gone longest
// first, and none before its time.
func TestPlacesAreGivenAgain(t *testing.T) {
	c := newCluster(t, "192.0.2.16/28", "2001:db8::/64") // 8 in the upper half, without the first and the last
	names := []string{"a", "b", "c", "d", "e", "f"}
	if r := publish(c, names...); r.Err != nil {
		t.Fatal(r.Err)
	}
	if o := c.View().PolicyOptions(); addresses(o.Services["f"]) != "192.0.2.30,2001:db8::8000:0:0:6" {
		t.Errorf("the last is %v", o.Services["f"])
	}
	full := func(names ...string) {
		t.Helper()
		r := publish(c, names...)
		if r.Err == nil || !strings.Contains(r.Err.Error(), "resources_full") && !strings.Contains(r.Err.Error(), "6") {
			t.Errorf("%v: %v", names, r.Err)
		}
		if _, err := c.View().PolicyOptionsFor(names); err == nil {
			t.Errorf("%v would be taken", names)
		}
	}
	full("a", "b", "c", "d", "e", "f", "g")
	publish(c, "b", "c", "d", "e", "f") // a goes
	c.now = c.now.Add(time.Hour)
	publish(c, "c", "d", "e", "f") // b goes
	full("c", "d", "e", "f", "x")
	c.now = c.now.Add(keepPlace - time.Hour)
	full("c", "d", "e", "f", "x", "y")
	must(c, PolicyApply{Text: "{}", Base: c.View().Policy().Version, Resources: []string{"c", "d", "e", "f", "x"}})
	if o := c.View().PolicyOptions(); o.Services["x"][0] != netip.MustParseAddr("192.0.2.25") {
		t.Errorf("x has not the place of a: %v", o.Services)
	}
	// b keeps its own until it is asked for, though it has gone long ago.
	c.now = c.now.Add(time.Hour)
	publish(c, "b", "c", "d", "e", "f", "x")
	if o := c.View().PolicyOptions(); o.Services["b"][0] != netip.MustParseAddr("192.0.2.26") {
		t.Errorf("b has lost its place: %v", o.Services)
	}
	small := newCluster(t, "192.0.2.16/29")
	if r := publish(small, "a", "b", "c"); r.Err == nil {
		t.Error("a network of 8 has room for three")
	}
}

func TestPlacesNeedTheirLevel(t *testing.T) {
	c := emptyCluster(t)
	must(c, Init{settings(), "{}"})
	must(c, Upgrade{Level: levelSelfTest})
	b := PolicyApply{Text: "{ }", Base: 1}
	refused(c, b, ErrLevel)
	if c.View().Takes(b) {
		t.Error("it is taken")
	}
	must(c, Upgrade{Level: levelResources})
	must(c, b)
}
