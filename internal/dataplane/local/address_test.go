package local

import (
	"errors"
	"math/rand/v2"
	"net"
	"net/netip"
	"testing"
)

func TestDialable(t *testing.T) {
	tunnel := []netip.Prefix{netip.MustParsePrefix("10.77.0.0/16"), netip.MustParsePrefix("fd77::/64")}
	for a, want := range map[string]bool{
		"192.0.2.1": true, "10.0.0.1": true, "2001:db8::1": true, "fd00::1": true,
		"64:ff9b::c000:201": true, "2002:c000:201::1": true, "::ffff:192.0.2.1": true,
		"127.0.0.1": false, "127.9.9.9": false, "0.0.0.0": false, "0.0.0.1": false,
		"169.254.169.254": false, "224.0.0.1": false, "255.255.255.255": false, "240.0.0.1": false,
		"10.77.0.1": false, "10.77.200.3": false, "::": false, "::1": false,
		"::7f00:1": false, "::ffff:127.0.0.1": false, "::ffff:10.77.0.1": false, "::ffff:0:127.0.0.1": false,
		"64:ff9b::7f00:1": false, "64:ff9b::a4d:1": false, "64:ff9b:1::7f00:1": false, "2002:7f00:1::": false,
		"fe80::1": false, "fec0::1": false, "ff02::1": false, "ff01::1": false, "fd77::1": false, "fe80::1%eth0": false,
	} {
		if err := Dialable(netip.MustParseAddr(a), tunnel); (err == nil) != want || err != nil && !errors.Is(err, ErrUndialable) {
			t.Errorf("%s: %v, want dialled %v", a, err, want)
		}
	}
	if Dialable(netip.Addr{}, nil) == nil {
		t.Error("no address at all may be dialled")
	}
}

func TestOwn(t *testing.T) {
	own := []netip.AddrPort{netip.MustParseAddrPort("0.0.0.0:8443"), netip.MustParseAddrPort("192.0.2.9:443"), netip.AddrPortFrom(netip.Addr{}, 51820)}
	for to, want := range map[string]bool{
		"127.0.0.1:8443": true, "127.3.4.5:8443": true, "[::1]:51820": true, "192.0.2.9:443": true, "[::ffff:192.0.2.9]:443": true,
		"127.0.0.1:8444": false, "192.0.2.1:8443": false, "127.0.0.1:443": false,
	} {
		if got := IsOwn(netip.MustParseAddrPort(to), own); got != want {
			t.Errorf("%s: own %v, want %v", to, got, want)
		}
	}
	if !Has(netip.MustParseAddr("127.0.0.1")) || Has(netip.MustParseAddr("192.0.2.1")) {
		t.Error("this host has 127.0.0.1, and has not 192.0.2.1")
	}
}

func TestStandin(t *testing.T) {
	for a, want := range map[string]string{
		"10.77.3.4": "127.77.3.4", "10.0.0.2": "127.254.0.2", "10.0.0.1": "127.254.0.1", "192.168.7.9": "127.168.7.9",
		"100.64.0.2": "127.64.0.2", "172.16.0.2": "127.16.0.2", "fd00::1234": "127.254.18.52", "::ffff:10.77.3.4": "127.77.3.4",
		"10.255.255.254": "127.255.255.254", "10.0.255.255": "127.254.255.255",
	} {
		if got, err := Standin(netip.MustParseAddr(a)); err != nil || got.String() != want {
			t.Errorf("%s: %v, %v, want %s", a, got, err, want)
		}
	}
	for _, a := range []netip.Addr{{}, netip.MustParseAddr("10.255.255.255")} {
		if got, err := Standin(a); err == nil {
			t.Errorf("%v: %v stands for it", a, got)
		}
	}
}

// Whatever the network: no device is 127.0.x.y, and no two devices are one.
func TestStandinOfAnyNetwork(t *testing.T) {
	never := netip.MustParsePrefix("127.0.0.0/16")
	r := rand.New(rand.NewPCG(1, 2))
	for range 300 {
		bits := 8 + r.IntN(20)
		first := [4]byte{byte(1 + r.IntN(223)), byte(r.IntN(256)), byte(r.IntN(256)), byte(r.IntN(256))}
		if r.IntN(3) == 0 {
			first[1] = []byte{0, 128, 254, 255}[r.IntN(4)]
		}
		network := netip.PrefixFrom(netip.AddrFrom4(first), bits).Masked()
		seen := make(map[netip.Addr]netip.Addr)
		for range 300 {
			n := r.Uint32N(1 << (32 - bits - 1)) // of the lower half
			b := network.Addr().As4()
			for i := range 4 {
				b[3-i] |= byte(n >> (8 * i))
			}
			a := netip.AddrFrom4(b)
			s, err := Standin(a)
			if err != nil {
				t.Fatalf("%v of %v: %v", a, network, err)
			}
			if never.Contains(s) || !s.IsLoopback() {
				t.Fatalf("%v of %v is %v", a, network, s)
			}
			if other, ok := seen[s]; ok && other != a {
				t.Fatalf("%v and %v of %v are both %v", a, other, network, s)
			}
			seen[s] = a
		}
	}
}

// A service sees who it stands for, at an address of loopback and at another one of this host.
func TestStandinIsSeen(t *testing.T) {
	from, err := Standin(netip.MustParseAddr("10.77.3.4"))
	if err != nil {
		t.Fatal(err)
	}
	hosts := []string{"127.0.0.1"}
	addrs, _ := net.InterfaceAddrs()
	for _, a := range addrs {
		if n := a.(*net.IPNet).IP.To4(); n != nil && !n.IsLoopback() && !n.IsLinkLocalUnicast() {
			hosts = append(hosts, n.String())
			break
		}
	}
	for _, host := range hosts {
		l, err := net.Listen("tcp", net.JoinHostPort(host, "0"))
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		d := net.Dialer{LocalAddr: &net.TCPAddr{IP: from.AsSlice()}}
		c, err := d.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Errorf("%s from %v: %v", host, from, err)
			continue
		}
		defer c.Close()
		s, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		if got := s.RemoteAddr().(*net.TCPAddr).AddrPort().Addr().Unmap(); got != from {
			t.Errorf("%s sees %v, want %v", host, got, from)
		}
	}
}
