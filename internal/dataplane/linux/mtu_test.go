package linux

import (
	"fmt"
	"testing"

	"vpnd/internal/dataplane"
)

// The interface follows the host's line while the plane runs, which is nobody's drift; a
// setting by hand goes before it.
func TestMTUFollowsTheLine(t *testing.T) {
	b := newBed(t)
	g := gateway(newKey(t))
	p := b.plane(b.options(), dataplane.State{Gateway: g})
	is := func(mtu int) {
		t.Helper()
		eventually(t, fmt.Sprintf("an MTU of %d", mtu), func() bool {
			return run(t, "ip -o link show vpn0 | grep -o 'mtu [0-9]*'") == fmt.Sprint("mtu ", mtu)
		})
	}
	is(1420)
	for _, c := range []struct {
		do  string
		mtu int
	}{
		{"ip link set r0 mtu 1440", 1360}, // no default route: any line may be the one
		{"ip route add default via 10.99.1.2", 1420},
		{"ip link set c0 mtu 1440", 1380},
		{"ip route change default via 10.99.1.2 mtu 1400", 1340},
		{"ip -6 route add default via fd99:1::2", 1340},
		{"ip link set c0 mtu 1300", 1280}, // IPv6 inside needs that: outer packets leave in fragments
		{"ip link set c0 mtu 9001", 1340},
		{"ip route change default via 10.99.1.2", 1420},
	} {
		run(t, c.do)
		is(c.mtu)
	}
	g.MTU = 1300
	if err := p.Set(t.Context(), dataplane.State{Gateway: g}); err != nil {
		t.Fatal(err)
	}
	is(1300)
	b.mu.Lock()
	if len(b.drift) > 0 {
		t.Errorf("drift that nobody caused: %v", b.drift)
	}
	b.mu.Unlock()
	run(t, "ip link set vpn0 mtu 1400")
	b.drifted("MTU of vpn0", "changed")
	is(1300)
}
