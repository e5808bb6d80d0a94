package control

import (
	"net/netip"
	"testing"
)

func TestLastOf(t *testing.T) {
	for text, want := range map[string]string{"10.77.0.0/16": "10.77.255.255", "fd00::/64": "fd00::ffff:ffff:ffff:ffff", "10.0.0.0/29": "10.0.0.7"} {
		if got := lastOf(netip.MustParsePrefix(text)); got != netip.MustParseAddr(want) {
			t.Errorf("the last of %s is %s", text, got)
		}
	}
}
