package linux

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"

	"vpnd/internal/dataplane"
)

// A vpnd that was killed leaves the host closed; the next one adopts what it left,
// without duplicates, and its stop puts back what was before the first.
func TestKilledAndStartedAgain(t *testing.T) {
	for _, global := range []bool{false, true} {
		t.Run(fmt.Sprintf("global forwarding %v", global), func(t *testing.T) {
			b := newBed(t)
			eventually(t, "a default route by advertisement", func() bool {
				b.advertise()
				return strings.Contains(run(t, "ip -6 route"), "default via fe80")
			})
			before := snapshot(t)
			key := newKey(t)
			dev, private := testDevice(t, 2)
			s := dataplane.State{Gateway: gateway(key), Devices: []dataplane.Device{dev}}
			env := "VPND_TEST_GLOBAL6="
			o := b.options()
			if o.GlobalForwarding6 = global; global {
				env += "1"
			}
			kill := b.startPlane(s, env)
			running := run(t, "ip rule; ip -6 rule")
			kill()
			if out := run(t, "ip rule; ip -6 rule"); strings.ReplaceAll(out, " [detached]", "") != running {
				t.Errorf("after SIGKILL the rules are\n%s\nnot\n%s", out, running)
			}
			left := kernelWireGuard(t)
			if _, err := try("ip link show vpn0"); (err == nil) != left {
				t.Errorf("an interface of the kernel's stays and one of wireguard-go's does not; kernel %v, %v", left, err)
			}

			// A second start, as another network: nothing of the old one may stay.
			other := s
			other.Devices = nil
			other.Gateway.Network = []netip.Prefix{netip.MustParsePrefix("10.55.0.0/16")}
			other.Gateway.Addrs = []netip.Addr{netip.MustParseAddr("10.55.0.1")}
			kill = b.startPlane(other, env)
			if out := run(t, "ip rule; ip -6 rule"); strings.Contains(out, "10.77") || strings.Contains(out, "fd77") {
				t.Errorf("rules of the former network are left:\n%s", out)
			}
			kill()

			p := b.plane(o, s)
			if out := run(t, "ip rule; ip -6 rule"); out != running {
				t.Errorf("after adoption the rules are\n%s\nnot\n%s", out, running)
			}
			b.connect(dev, private, key)
			for _, to := range []string{"10.77.0.1", "fd77::1", "192.0.2.2", "2001:db8:2::2"} {
				eventually(t, "an answer from "+to, func() bool { return b.pings(to) })
			}
			if !strings.Contains(run(t, "ip -6 route"), "default via fe80") {
				t.Error("the host lost the default route that it had by advertisement")
			}
			run(t, "ip -6 route del default")
			eventually(t, "advertisements still being taken", func() bool {
				b.advertise()
				return strings.Contains(run(t, "ip -6 route"), "default via fe80")
			})
			if err := p.Close(); err != nil {
				t.Fatal(err)
			}
			run(t, "nft flush ruleset")
			if after := snapshot(t); after != before {
				t.Errorf("the host is not as it was before the first start:\n%s", diff(t, before, after))
			}
			if out := run(t, "ls /run/vpnd"); out != "" {
				t.Errorf("left in /run/vpnd: %s", out)
			}
		})
	}
}

// kernelWireGuard says whether the kernel has WireGuard.
func kernelWireGuard(t *testing.T) bool {
	t.Helper()
	if _, err := try("ip link add wgprobe type wireguard"); err != nil {
		return false
	}
	run(t, "ip link del wgprobe")
	return true
}

// counted counts the pings from the resource that arrive at the client's namespace by
// the outer network: what the host itself would have to forward.
func (b *bed) counted() (count func() string) {
	run(b.t, `ip netns exec client nft 'table inet count { chain in { type filter hook input priority 0;
		iifname eth0 icmp type echo-request counter
		iifname eth0 icmpv6 type echo-request counter
	}
	}'`)
	return func() string {
		try("ip netns exec resource ping -c2 -i0.2 -W0.3 10.99.1.2")
		try("ip netns exec resource ping -c2 -i0.2 -W0.3 fd99:1::2")
		return run(b.t, "ip netns exec client nft list table inet count | grep -o 'packets [0-9]*' | tr '\\n' ' '")
	}
}

// What the host did not forward before it still does not, even without any filter; and
// what it did forward it still does.
func TestForwardsNothingElse(t *testing.T) {
	for _, global := range []bool{false, true} {
		t.Run(fmt.Sprintf("global forwarding %v", global), func(t *testing.T) {
			b := newBed(t)
			count := b.counted()
			o := b.options()
			o.GlobalForwarding6 = global
			b.plane(o, dataplane.State{Gateway: gateway(newKey(t))})
			if got := count(); got != "packets 0 packets 0" {
				t.Errorf("a host that did not forward now does: %s", got)
			}
			run(t, "nft flush ruleset")
			if got := count(); got != "packets 0 packets 0" {
				t.Errorf("without the filter, a host that did not forward now does: %s", got)
			}
		})
	}
	t.Run("a router", func(t *testing.T) {
		b := newBed(t)
		count := b.counted()
		run(t, "sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1")
		t.Cleanup(func() { run(t, "sysctl -qw net.ipv4.ip_forward=0 net.ipv6.conf.all.forwarding=0") })
		before := snapshot(t)
		p := b.plane(b.options(), dataplane.State{Gateway: gateway(newKey(t))})
		if got := count(); got != "packets 2 packets 2" {
			t.Errorf("a router forwards no longer: %s", got)
		}
		if err := p.Close(); err != nil {
			t.Fatal(err)
		}
		if after := snapshot(t); after != before {
			t.Errorf("the host is not as it was:\n%s", diff(t, before, after))
		}
	})
}

// The owner may make the host a router while vpnd runs: that is then hers, and stays.
func TestOwnerSwitchesForwardingOn(t *testing.T) {
	for _, global := range []bool{false, true} {
		t.Run(fmt.Sprintf("global forwarding %v", global), func(t *testing.T) { ownerSwitchesForwardingOn(t, global) })
	}
}

func ownerSwitchesForwardingOn(t *testing.T, global bool) {
	b := newBed(t)
	count := b.counted()
	o := b.options()
	o.GlobalForwarding6 = global
	p := b.plane(o, dataplane.State{Gateway: gateway(newKey(t))})
	run(t, "sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1")
	t.Cleanup(func() { run(t, "sysctl -qw net.ipv4.ip_forward=0 net.ipv6.conf.all.forwarding=0") })
	eventually(t, "the guards going", func() bool { return !strings.Contains(run(t, "ip rule; ip -6 rule"), "blackhole") })
	if got := count(); got != "packets 2 packets 2" {
		t.Errorf("the router forwards %s", got)
	}
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	if got := run(t, "cd /proc/sys/net; cat ipv4/ip_forward ipv4/conf/r0/forwarding ipv6/conf/all/forwarding"); got != "1\n1\n1" {
		t.Errorf("after the stop the owner's sysctls are %q", got)
	}
}

// What keeps a gateway from starting is said before anything is changed.
func TestRefusalsChangeNothing(t *testing.T) {
	b := newBed(t)
	before := snapshot(t)
	s := dataplane.State{Gateway: gateway(newKey(t))}
	for _, c := range []struct {
		name     string
		do, undo string
		want     error
		says     string
	}{
		{"a route", "ip route add 10.77.3.0/24 via 10.99.1.2", "ip route del 10.77.3.0/24", ErrCollision, "10.77.3.0/24 by c0"},
		{"a wider route", "ip route add 10.0.0.0/8 via 10.99.1.2", "ip route del 10.0.0.0/8", ErrCollision, "10.0.0.0/8 by c0"},
		{"an IPv6 route", "ip -6 route add fd77::/48 via fd99:1::2", "ip -6 route del fd77::/48", ErrCollision, "fd77::/48 by c0"},
		{"an address", "ip addr add 10.77.0.1/32 dev c0", "ip addr del 10.77.0.1/32 dev c0", ErrCollision, "address 10.77.0.1 on c0"},
		{"an interface", "ip link add vpn0 type veth peer name vpn0x", "ip link del vpn0", ErrInterfaceTaken, "vpn0 exists already (veth)"},
		{"a TUN interface", "ip tuntap add vpn0 mode tun", "ip link del vpn0", ErrInterfaceTaken, "vpn0 exists already (tuntap)"},
		{"no collision", "ip route add default via 10.99.1.2", "ip route del default", nil, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			run(t, c.do)
			changed := snapshot(t)
			err := Precheck(t.Context(), b.config(), s.Gateway)
			if !errors.Is(err, c.want) || err != nil && (!strings.Contains(err.Error(), c.says) || strings.Contains(err.Error(), "\n")) {
				t.Errorf("Precheck: %v", err)
			}
			if c.want != nil {
				p, err := b.options().New(t.Context(), b.config())
				if err != nil {
					t.Fatal(err)
				}
				if err := p.Set(t.Context(), s); !errors.Is(err, c.want) {
					t.Errorf("Set: %v", err)
				}
				if err := p.Close(); err != nil {
					t.Errorf("Close: %v", err)
				}
			}
			if now := snapshot(t); now != changed {
				t.Errorf("the host was changed:\n%s", diff(t, changed, now))
			}
			run(t, c.undo)
		})
	}
	t.Run("a port", func(t *testing.T) {
		c, err := net.ListenPacket("udp4", "127.0.0.1:51820")
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if err := Precheck(t.Context(), b.config(), s.Gateway); !errors.Is(err, ErrPortInUse) {
			t.Errorf("Precheck: %v", err)
		}
	})
	if now := snapshot(t); now != before {
		t.Errorf("the host was changed:\n%s", diff(t, before, now))
	}
	t.Run("a second plane", func(t *testing.T) {
		b.plane(b.options(), s)
		c := b.config()
		c.Interface = "vpn1"
		if err := Precheck(t.Context(), c, s.Gateway); !errors.Is(err, ErrRunning) {
			t.Errorf("Precheck: %v", err)
		}
	})
	if err := Probe(t.Context(), b.config()); err != nil {
		t.Errorf("Probe: %v", err)
	}
}
