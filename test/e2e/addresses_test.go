package e2e

import (
	"testing"
)

// The gateway answers from the address that a client dialled, whichever of its own that is
// and however the answer is routed: a stateful filter before the client lets nothing else in.
func TestAnswersFromWhereDialled(t *testing.T) {
	both(t, func(t *testing.T, w *world) {
		// A second uplink; everything to the far client leaves by the first.
		w.gw.addr("eth0", "192.0.2.200/24")
		w.gw.addr("eth0", "2001:db8:1::200/64")
		l := behindRouter(w)
		connect(t, w.gw, "eth2", l.router, "eth2")
		for h, p := range map[*host]string{w.gw: "1", l.router: "2"} {
			h.addr("eth2", "192.0.3."+p+"/24")
			h.addr("eth2", "2001:db8:3::"+p+"/64")
		}
		for _, h := range []*host{w.gw, l.router} {
			h.run("sysctl", "-qw", "net.ipv4.conf.all.rp_filter=0", "net.ipv4.conf.eth0.rp_filter=0", "net.ipv4.conf.eth2.rp_filter=0")
		}
		l.run("nft", `add table inet f; add chain inet f i { type filter hook input priority 0; policy drop; };
			add rule inet f i iifname { "lo", "`+l.iface+`" } accept; add rule inet f i ct state established,related accept;
			add rule inet f i icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } accept`)
		for _, gateway := range []string{"192.0.2.200", "2001:db8:1::200", gwPublic4, gwPublic6, "192.0.3.1", "2001:db8:3::1"} {
			l.dial(gateway)
			if got := l.load(); got != wholeFile {
				t.Errorf("by %s: %s bytes came", gateway, got)
			}
		}

		// An address that floats here while vpnd runs, and away again.
		w.gw.addr("eth0", "192.0.2.201/24")
		w.gw.addr("eth0", "2001:db8:1::201/64")
		for _, gateway := range []string{"192.0.2.201", "2001:db8:1::201"} {
			l.dial(gateway)
		}
		w.gw.run("ip", "addr", "del", "192.0.2.201/24", "dev", "eth0")
		w.gw.run("ip", "addr", "del", "2001:db8:1::201/64", "dev", "eth0")
		l.dial(gwPublic4)
	})
}
