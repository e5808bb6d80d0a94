package linux

import (
	"context"
	"errors"
	"strings"
	"testing"

	"vpnd/internal/dataplane"
)

// flakyFilter refuses so many changes.
type flakyFilter struct {
	PacketFilter
	refuse *int
}

func (f flakyFilter) Update(context.Context, dataplane.Change) error {
	if *f.refuse > 0 {
		*f.refuse--
		return errors.New("no buffer space")
	}
	return nil
}

// TestRepeatedChange: a change that failed can be told again as that change.
func TestRepeatedChange(t *testing.T) {
	b := newBed(t)
	a, _ := testDevice(t, 2)
	gone, _ := testDevice(t, 3)
	moved, _ := testDevice(t, 4)
	refuse := 0
	o := Options{OpenFilter: func(context.Context, FilterConfig) (PacketFilter, error) {
		return flakyFilter{passFilter{t}, &refuse}, nil
	}}
	p := b.plane(o, dataplane.State{Gateway: gateway(newKey(t)), Devices: []dataplane.Device{gone, moved}})
	next := moved
	next.Addrs = moved.Addrs[:1]
	c := dataplane.Change{RemoveDevices: []dataplane.Device{gone}, PutDevices: []dataplane.Device{a, next}}
	for _, n := range []int{1, 2} { // closing fails; then closing, and opening of the one after
		refuse = n
		for range n {
			if err := p.Update(t.Context(), c); err == nil {
				t.Fatal("a refused change was not told")
			}
		}
		if err := p.Update(t.Context(), c); err != nil {
			t.Fatal(err)
		}
		peers := run(t, "wg show vpn0 allowed-ips")
		if strings.Contains(peers, b64(gone.PublicKey)) || !strings.Contains(peers, b64(a.PublicKey)) || strings.Contains(peers, "fd77::4/128") {
			t.Errorf("after %d failures the peers are\n%s", n, peers)
		}
		c.RemoveDevices, c.PutDevices = []dataplane.Device{a}, []dataplane.Device{gone, moved}
		if err := p.Update(t.Context(), c); err != nil {
			t.Fatal(err)
		}
		c = dataplane.Change{RemoveDevices: []dataplane.Device{gone}, PutDevices: []dataplane.Device{a, next}}
	}
	if d := b.drift; len(d) > 0 {
		t.Errorf("drift that nobody caused: %v", d)
	}
}
