package linux

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"vpnd/internal/dataplane"
)

// snapshot is everything of the host's that a plane could leave changed.
func snapshot(t *testing.T) string {
	t.Helper()
	return run(t, `ip rule; ip -6 rule; ip -d link | grep -v '^ '; ip addr | grep -v valid_lft; (ip route show table all; ip -6 route show table all) | sed 's/ expires [0-9]*sec//';
		nft list ruleset; cd /proc/sys/net; grep -r . ipv4/conf ipv6/conf ipv4/ip_forward 2>/dev/null | grep -v stable_secret | sort`)
}

func TestClientThroughThePlane(t *testing.T) {
	for _, rp := range []string{"0", "1", "2"} {
		t.Run("rp_filter="+rp, func(t *testing.T) {
			b := newBed(t)
			for _, i := range []string{"all", "default", "r0", "c0"} {
				run(t, fmt.Sprintf("sysctl -qw net.ipv4.conf.%s.rp_filter=%s", i, rp))
			}
			t.Cleanup(func() { run(t, "sysctl -qw net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.default.rp_filter=0") })
			before := snapshot(t)
			key := newKey(t)
			dev, private := testDevice(t, 2)
			p := b.plane(b.options(), dataplane.State{Gateway: gateway(key), Devices: []dataplane.Device{dev}})
			b.connect(dev, private, key)
			for _, to := range []string{"10.77.0.1", "fd77::1", "192.0.2.2", "2001:db8:2::2"} {
				eventually(t, "an answer from "+to, func() bool { return b.pings(to) })
			}
			if out := run(t, "wg show vpn0 peers"); out != b64(dev.PublicKey) {
				t.Errorf("wg show says %q", out)
			}
			s, err := p.Stats(t.Context(), dev.PublicKey)
			if err != nil || s.Peers[dev.PublicKey].LastHandshake.IsZero() || s.Peers[dev.PublicKey].Received == 0 {
				t.Errorf("Stats: %+v, %v", s, err)
			}
			// Nothing of the filter is left: routing closes the tunnel at once.
			run(t, "nft flush ruleset")
			if b.pings("192.0.2.2") || b.pings("2001:db8:2::2") {
				t.Error("forwarded without the filter")
			}
			if !b.pings("10.77.0.1") {
				t.Error("the gateway itself does not answer without the filter")
			}
			b.mu.Lock()
			if len(b.drift) > 0 {
				t.Errorf("drift that nobody caused: %v", b.drift)
			}
			b.mu.Unlock()
			passFilter{t}.Set(t.Context(), dataplane.State{})
			if err := p.Close(); err != nil {
				t.Fatal(err)
			}
			if after := snapshot(t); after != before {
				t.Errorf("the host is not as it was:\n%s", diff(t, before, after))
			}
		})
	}
}

func diff(t *testing.T, a, b string) string {
	dir := t.TempDir()
	for n, s := range map[string]string{"before": a, "after": b} {
		if err := os.WriteFile(dir+"/"+n, []byte(s+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	out, _ := try("cd " + dir + "; diff before after")
	return strings.TrimSpace(out)
}
