package linux

import (
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"vpnd/internal/dataplane"
)

// Everything that somebody may change by hand is put right within 2 s, and told.
func TestDriftIsPutRight(t *testing.T) {
	b := newBed(t)
	key := newKey(t)
	dev, private := testDevice(t, 2)
	dev2, _ := testDevice(t, 3)
	stranger := pub(newKey(t))
	p := b.plane(b.options(), dataplane.State{Gateway: gateway(key), Devices: []dataplane.Device{dev, dev2}})
	l, err := p.Listen(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			io.WriteString(c, "portal")
			c.Close()
		}
	}()
	b.connect(dev, private, key)
	eventually(t, "an answer from behind the gateway", func() bool { return b.pings("192.0.2.2") })

	rulesBefore := run(t, "ip rule; ip -6 rule")
	peersBefore := run(t, "wg show vpn0 allowed-ips | sort; wg show vpn0 preshared-keys | sort; wg show vpn0 listen-port; wg show vpn0 private-key; wg show vpn0 fwmark")
	addrsBefore := addrLines(t)
	sysctlsBefore := run(t, "cd /proc/sys/net; grep -r . ipv4/conf ipv6/conf 2>/dev/null | grep -v stable_secret | sort")
	routesBefore := run(t, "ip route; ip -6 route")
	k2 := b64(dev2.PublicKey)
	for _, c := range []struct{ do, what, was string }{
		{"wg set vpn0 peer " + k2 + " remove", "peer user/dev3", "removed"},
		{"wg set vpn0 peer " + b64(stranger) + " allowed-ips 10.77.0.9/32", "peer " + shortKey(stranger), "added"},
		{"wg set vpn0 peer " + k2 + " allowed-ips 10.77.0.2/32", "peer user/dev", "changed"}, // takes dev's address
		{"wg set vpn0 peer " + k2 + " allowed-ips 0.0.0.0/0", "peer user/dev3", "changed"},
		{"wg set vpn0 peer " + k2 + " preshared-key /dev/null", "peer user/dev3", "changed"},
		{"wg set vpn0 listen-port 51999", "UDP port of vpn0", "changed"},
		{"wg set vpn0 fwmark 0x1234", "fwmark of vpn0", "changed"},
		{"ip addr del 10.77.0.1/16 dev vpn0", "address 10.77.0.1/16 on vpn0", "removed"},
		{"ip addr del fd77::1/64 dev vpn0", "address fd77::1/64 on vpn0", "removed"},
		{"ip addr add 10.66.0.1/24 dev vpn0", "address 10.66.0.1/24 on vpn0", "added"},
		{"ip route del 10.77.0.0/16 dev vpn0", "route 10.77.0.0/16", "removed"},
		{"ip -6 route del fd77::/64 dev vpn0", "route fd77::/64", "removed"},
		{"ip link set vpn0 down", "interface vpn0", "set down"},
		{"ip link set vpn0 mtu 1300", "MTU of vpn0", "changed"},
		{"ip rule del iif vpn0 prohibit", "iif vpn0 prohibit", "removed"},
		{"ip -6 rule del to fd77::/64 prohibit", "to fd77::/64 prohibit", "removed"},
		{"ip rule add pref 60 iif vpn0 lookup main protocol 77", "routing rule 60 iif vpn0 lookup main", "added"},
		{"ip rule flush; ip rule add pref 32766 lookup main; ip rule add pref 32767 lookup default", "routing rule", "removed"},
		{"sysctl -qw net.ipv4.conf.vpn0.forwarding=0", "sysctl net.ipv4.conf.vpn0.forwarding", "changed"},
		{"sysctl -qw net.ipv4.conf.vpn0.src_valid_mark=0", "sysctl net.ipv4.conf.vpn0.src_valid_mark", "changed"},
		{"sysctl -qw net.ipv4.conf.r0.forwarding=0", "sysctl net.ipv4.conf.r0.forwarding", "changed"},
		{"sysctl -qw net.ipv6.conf.r0.force_forwarding=0", "sysctl net.ipv6.conf.r0.force_forwarding", "changed"},
		{"wg genkey > /run/other; wg set vpn0 private-key /run/other", "private key of vpn0", "changed"},
		{"ip link set vpn0 down; ip link set vpn0 name other0", "interface vpn0", "removed"},
		{"ip link del vpn0", "interface vpn0", "removed"},
	} {
		if strings.Contains(c.do, "force_forwarding") && !p.forceForwarding() {
			continue // before Linux 6.17
		}
		run(t, c.do)
		b.drifted(c.what, c.was)
		eventually(t, "all as before after "+c.do, func() bool {
			peers, _ := try("wg show vpn0 allowed-ips | sort; wg show vpn0 preshared-keys | sort; wg show vpn0 listen-port; wg show vpn0 private-key; wg show vpn0 fwmark")
			return run(t, "ip rule; ip -6 rule") == rulesBefore && peers == peersBefore && addrLines(t) == addrsBefore &&
				run(t, "ip route; ip -6 route") == routesBefore &&
				run(t, "cd /proc/sys/net; grep -r . ipv4/conf ipv6/conf 2>/dev/null | grep -v stable_secret | sort") == sysctlsBefore
		})
	}

	// The client's tunnel outlives the interface, and the portal listens on the new one.
	eventually(t, "an answer after ip link del", func() bool { return b.pings("192.0.2.2") })
	for _, to := range []string{"10.77.0.1", "fd77::1"} {
		if out, err := try(fmt.Sprintf("ip netns exec client timeout 2 nc -d %s %d", to, p.portal.port)); out != "portal" {
			t.Errorf("the portal on %s answers %q, %v", to, out, err)
		}
	}
	// The UAPI socket is served again when somebody removes it.
	if p.link.engine != nil {
		run(t, "rm /var/run/wireguard/vpn0.sock")
	}
	eventually(t, "wg show works again", func() bool {
		out, err := try("wg show vpn0 public-key")
		return err == nil && out == b64(pub(key))
	})
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.drift) > 0 {
		t.Errorf("drift that nobody caused: %v", b.drift)
	}
}

func addrLines(t *testing.T) string {
	out, _ := try("ip -o addr show dev vpn0 scope global | awk '{print $3,$4}'; ip -o link show vpn0 | grep -o 'mtu [0-9]*'")
	return out
}

// The portal is reached by the tunnel alone, whatever address is dialled.
func TestPortalListensOnTheTunnelOnly(t *testing.T) {
	b := newBed(t)
	key := newKey(t)
	p := b.plane(b.options(), dataplane.State{Gateway: gateway(key)})
	l, err := p.Listen(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.Listen(t.Context()); err == nil {
		t.Error("a second Listen is not refused")
	}
	var got = make(chan net.Conn, 10)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				close(got)
				return
			}
			got <- c
		}
	}()
	port := p.portal.port
	run(t, "ip netns exec resource ip route add 10.77.0.0/16 via 192.0.2.1")
	for _, from := range []string{"", "ip netns exec client ", "ip netns exec resource "} {
		for _, to := range []string{"10.77.0.1", "192.0.2.1", "fd77::1", "2001:db8:2::1"} {
			// The kernel lets the host itself connect to an address of the interface; the
			// listener hangs up on it, and Accept never returns it.
			if out, err := try(fmt.Sprintf("%snc -z -w1 %s %d", from, to, port)); err == nil && from != "" {
				t.Errorf("%snc %s connects: %s", from, to, out)
			}
		}
	}
	if err := l.Close(); err != nil {
		t.Error(err)
	}
	select {
	case _, ok := <-got:
		if ok {
			t.Error("somebody reached the portal")
		}
	case <-time.After(2 * time.Second):
		t.Error("Accept does not return after Close")
	}
	if l, err = p.Listen(t.Context()); err != nil {
		t.Error("Listen after Close:", err)
	}
}
