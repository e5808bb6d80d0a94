package netstack

import (
	"errors"
	"net/netip"
	"testing"

	"vpnd/internal/dataplane"
)

func TestUndialable(t *testing.T) {
	p, err := New(t.Context(), dataplane.Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	p.near.Store(&dataplane.Gateway{Network: network})
	for _, test := range []struct {
		addr string
		want bool // may be dialled
	}{
		{"192.0.2.1", true},
		{"10.0.0.1", true},
		{"2001:db8::1", true},
		{"fd00::1", true},
		{"64:ff9b::c000:201", true}, // 192.0.2.1
		{"2002:c000:201::1", true},
		{"127.0.0.1", false},
		{"127.9.9.9", false},
		{"0.0.0.0", false},
		{"0.0.0.1", false},
		{"169.254.169.254", false},
		{"224.0.0.1", false},
		{"255.255.255.255", false},
		{"240.0.0.1", false},
		{"10.77.0.1", false},
		{"10.77.200.3", false},
		{"::", false},
		{"::1", false},
		{"::7f00:1", false},           // IPv4-compatible 127.0.0.1
		{"::ffff:127.0.0.1", false},   // mapped
		{"::ffff:10.77.0.1", false},   // mapped, in the tunnel
		{"::ffff:0:127.0.0.1", false}, // translated
		{"64:ff9b::7f00:1", false},    // NAT64 of 127.0.0.1
		{"64:ff9b::a9fe:a9fe", false}, // NAT64 of 169.254.169.254
		{"64:ff9b::a4d:1", false},     // NAT64 of 10.77.0.1
		{"64:ff9b:1::7f00:1", false},  // local NAT64
		{"2002:7f00:1::", false},      // 6to4 of 127.0.0.1
		{"fe80::1", false},
		{"fec0::1", false},
		{"ff02::1", false},
		{"ff01::1", false},
		{"fd77::1", false},
		{"fd77::ffff", false},
	} {
		err := p.undialable(netip.MustParseAddr(test.addr))
		if (err == nil) != test.want {
			t.Errorf("%s: %v, want dialled %v", test.addr, err, test.want)
		}
		if err != nil && !errors.Is(err, errUndialable) {
			t.Errorf("%s: %v is not errUndialable", test.addr, err)
		}
	}
}

// The host's own listeners are refused under every address of the host.
func TestOwnListener(t *testing.T) {
	own := []netip.AddrPort{ap("0.0.0.0:8443"), ap("[::]:9443"), ap("198.51.100.9:7443")}
	p, err := New(t.Context(), dataplane.Config{Own: own})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	p.near.Store(&dataplane.Gateway{Listen: netip.MustParseAddrPort("0.0.0.0:51820")})
	needNamespace(t)
	run(t, "ip addr replace 198.51.101.1/32 dev lo")
	run(t, "ip addr replace 2001:db8:101::1/128 dev lo")
	run(t, "ip route replace local 198.51.102.0/24 dev lo") // every address of it is the host's
	var locals []netip.Addr
	for _, a := range []string{"127.0.0.1", "127.3.4.5", "::1", "198.51.101.1", "2001:db8:101::1", "198.51.102.77"} {
		locals = append(locals, netip.MustParseAddr(a))
	}
	for _, a := range locals {
		for _, port := range []uint16{8443, 9443, 51820} {
			if p.ownListener(netip.AddrPortFrom(a, port)) == nil {
				t.Errorf("%v:%d may be dialled", a, port)
			}
		}
		if err := p.ownListener(netip.AddrPortFrom(a, 22)); err != nil {
			t.Errorf("%v:22: %v", a, err)
		}
	}
	if p.ownListener(ap("198.51.100.9:7443")) == nil {
		t.Error("198.51.100.9:7443 may be dialled")
	}
	if err := p.ownListener(ap("198.51.100.8:8443")); err != nil {
		t.Errorf("another host's port 8443: %v", err)
	}
}
