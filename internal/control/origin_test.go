package control

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"vpnd/peers"
)

// What a flag of this gateway gives cannot be set over the API, and is named; the rest can.
func TestPinned(t *testing.T) {
	w := newWorld(t)
	w.pinned = map[string]string{"endpoint": "the flag --endpoint", "routes": "its line in /etc/vpnd/vpnd.toml"}
	endpoint, routes, length := "other.example:1", []netip.Prefix{}, 8*time.Hour
	for _, c := range []struct {
		change peers.Configure
		want   []string
	}{
		{peers.Configure{Endpoint: &endpoint}, []string{"endpoint (the flag --endpoint)"}},
		{peers.Configure{Session: &length, Routes: &routes}, []string{"routes (its line in /etc/vpnd/vpnd.toml)"}},
		{peers.Configure{Endpoint: &endpoint, Routes: &routes}, []string{"endpoint", "routes"}},
	} {
		_, _, err := w.SetSettings(t.Context(), c.change)
		refusal, ok := err.(*Error)
		if !ok || refusal.Kind() != KindPinned {
			t.Fatalf("%+v: %v", c.change, err)
		}
		for _, s := range c.want {
			if !strings.Contains(refusal.Values()["settings"], s) {
				t.Errorf("%v does not say %q", refusal, s)
			}
		}
	}
	set, _, err := w.SetSettings(t.Context(), peers.Configure{Session: &length})
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{"endpoint": "the flag --endpoint", "url": "cluster", "session": "cluster", "mtu": "default", "dns": "default",
		"routes": "its line in /etc/vpnd/vpnd.toml", "masquerade": "default", "network": "cluster"}
	for _, o := range w.Origins(set) {
		if o.From != want[o.Setting] || o.Pinned != (w.pinned[o.Setting] != "") {
			t.Errorf("%+v, want %q", o, want[o.Setting])
		}
		delete(want, o.Setting)
	}
	if len(want) > 0 {
		t.Errorf("nothing is said of %v", want)
	}
}
