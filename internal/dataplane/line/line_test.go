package line

import (
	"context"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestTunnel(t *testing.T) {
	for _, c := range []struct {
		line       Line
		with6, no6 int
	}{
		{Line{}, 1420, 1420},
		{Line{MTU4: 1500}, 1420, 1420},
		{Line{MTU4: 1500, MTU6: 1500}, 1420, 1420},
		{Line{MTU4: 9001, MTU6: 9001}, 1420, 1420},
		{Line{MTU4: 1492}, 1420, 1420}, // PPPoE
		{Line{MTU4: 1492, MTU6: 1492}, 1412, 1412},
		{Line{MTU4: 1460}, 1400, 1400}, // DS-Lite, LTE, Google's cloud
		{Line{MTU6: 1460}, 1380, 1380},
		{Line{MTU4: 1500, MTU6: 1400}, 1320, 1320},
		{Line{MTU4: 1280, MTU6: 1280}, 1280, 1200},
		{Line{MTU4: 576}, 1280, 576},
	} {
		if w, n := c.line.Tunnel(true), c.line.Tunnel(false); w != c.with6 || n != c.no6 {
			t.Errorf("%+v: %d with IPv6 inside, %d without, want %d and %d", c.line, w, n, c.with6, c.no6)
		}
	}
}

// inNamespace gives the test a network namespace of its own, on a thread of its own.
func inNamespace(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		if os.Getenv("CI") != "" {
			t.Fatal("network namespaces need root")
		}
		t.Skip("network namespaces need root")
	}
	runtime.LockOSThread() // and never unlocked: the thread ends with the test
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		t.Fatal(err)
	}
}

func ip(t *testing.T, line string) {
	t.Helper()
	if out, err := exec.Command("ip", strings.Fields(line)...).CombinedOutput(); err != nil {
		t.Fatalf("ip %s: %v\n%s", line, err, out)
	}
}

func TestRead(t *testing.T) {
	inNamespace(t)
	ip(t, "link add name e0 type veth peer name e0_")
	ip(t, "link add name e1 type veth peer name e1_")
	ip(t, "link add name vpn0 type veth peer name vpn0_")
	for _, l := range []string{"e0 mtu 1500 up", "e1 mtu 1400 up", "vpn0 mtu 1280 up", "e0_ up", "e1_ mtu 9001 up", "vpn0_ up"} {
		ip(t, "link set "+l)
	}
	ip(t, "addr add 192.0.2.1/24 dev e0")
	ip(t, "addr add 198.51.100.1/24 dev e1")
	ip(t, "addr add 2001:db8::1/64 dev e1 nodad")
	for _, c := range []struct {
		do   string
		want Line
	}{
		{"link set lo up", Line{MTU6: 1400, Name: "e1"}}, // no default route: any that is up
		{"route add default via 192.0.2.2", Line{MTU4: 1500, Name: "e0"}},
		{"route change default via 192.0.2.2 mtu 1450", Line{MTU4: 1450, Name: "e0"}},
		{"-6 route add default via 2001:db8::2", Line{MTU4: 1450, MTU6: 1400, Name: "e1"}},
		{"-6 route del default", Line{MTU4: 1450, Name: "e0"}},
		{"route add default via 198.51.100.2 metric 9", Line{MTU4: 1400, Name: "e1"}}, // another uplink
		{"route replace default nexthop via 192.0.2.2 nexthop via 198.51.100.2", Line{MTU4: 1400, Name: "e1"}},
		{"link set e1 mtu 9001", Line{MTU4: 1500, Name: "e0"}},
	} {
		ip(t, c.do)
		got, err := Read("vpn0")
		if err != nil || got != c.want {
			t.Errorf("after ip %s: %+v, %v; want %+v", c.do, got, err, c.want)
		}
	}
}

func TestWatch(t *testing.T) {
	inNamespace(t)
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	changed := make(chan struct{}, 100)
	if err := Watch(ctx, func() { changed <- struct{}{} }); err != nil {
		t.Fatal(err)
	}
	ip(t, "link add name a type veth peer name a_")
	select {
	case <-changed:
	case <-time.After(10 * time.Second):
		t.Error("a new interface was not heard of")
	}
}
