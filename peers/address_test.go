package peers

import (
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"
)

func TestAddressesRunOutAndComeBack(t *testing.T) {
	c := newCluster(t, "192.0.2.16/28", "2001:db8::/64")
	must(c, UserAdd{id("alice"), "alice", nil})
	// Of 16 addresses the lower half, without the network's own and the gateway's.
	var given []string
	for i := range 6 {
		d := must(c, DeviceAdd{id("alice"), device("alice", number("d", i))}).Device
		given = append(given, addresses(d.Addrs))
	}
	want := []string{"192.0.2.18,2001:db8::2", "192.0.2.19,2001:db8::3", "192.0.2.20,2001:db8::4", "192.0.2.21,2001:db8::5", "192.0.2.22,2001:db8::6", "192.0.2.23,2001:db8::7"}
	if !slices.Equal(given, want) {
		t.Errorf("given were %v", given)
	}
	r := refused(c, DeviceAdd{id("alice"), device("alice", "more")}, ErrFull)
	if !strings.Contains(r.Err.Error(), "count=6 ") {
		t.Errorf("the error has no number: %v", r.Err)
	}
	// The longest released comes first.
	must(c, DeviceRemove{id("alice/d-4")})
	must(c, DeviceRemove{id("alice/d-1")})
	if c.View().DeviceByAddr(netip.MustParseAddr("192.0.2.19")) != nil {
		t.Error("a released address has a device")
	}
	for i, want := range []string{want[4], want[1]} {
		d := must(c, DeviceAdd{id("alice"), device("alice", number("new", i))}).Device
		if got := addresses(d.Addrs); got != want {
			t.Errorf("given again was %s, want %s", got, want)
		}
	}
	refused(c, DeviceAdd{id("alice"), device("alice", "more")}, ErrFull)
}

func TestDeviceByAddr(t *testing.T) {
	c := newCluster(t)
	_, d := enrol(c, "alice", "laptop")
	v := c.View()
	for s, want := range map[string]*Device{
		"10.77.0.2": d, "fd00:77::2": d, "::ffff:10.77.0.2": d, "10.77.0.1": nil, "10.77.0.3": nil, "10.78.0.2": nil, "fd00:77::1:0:2": nil,
		"fd00:77::1:2": nil, "fd00:78::2": nil, "fe80::2": nil, "fd00:77::2%eth0": nil,
	} {
		if got := v.DeviceByAddr(netip.MustParseAddr(s)); got != want {
			t.Errorf("%s is of %v", s, got)
		}
	}
	if v.DeviceByAddr(netip.Addr{}) != nil {
		t.Error("no address is somebody's")
	}
}

// Prefixes of every size: the first and the last place have addresses inside, and are
// found again.
func TestPlacesOfPrefixes(t *testing.T) {
	for _, n := range []string{"10.0.0.0/8", "10.77.0.0/16", "10.64.0.0/10", "192.0.2.0/24", "192.0.2.248/29", "0.0.0.0/1", "2001:db8::/32", "fd00::/64", "fd00::/96", "fd00::/97", "fd00::8/125"} {
		s := settings(n)
		p := s.Network[0]
		end := hosts(s.Network)
		for _, host := range []uint32{1, firstHost, end - 1} {
			a := s.addrs(host)[0]
			if !p.Contains(a) {
				t.Errorf("%s: place %d is %s", n, host, a)
			}
			if got, ok := s.host(a); !ok || got != host {
				t.Errorf("%s: %s is at %d, want %d", n, a, got, host)
			}
		}
		// The upper half is kept, also the address of its beginning.
		if a, ok := addrAt(p, end-1); !ok || !p.Contains(a) {
			t.Errorf("%s: the last place is %s", n, a)
		}
		if p.Addr().Is4() {
			if half := netip.PrefixFrom(p.Addr(), p.Bits()+1); !half.Contains(s.addrs(end - 1)[0]) {
				t.Errorf("%s: place %d lies in the upper half", n, end-1)
			}
		}
	}
}

// Any number of creators propose at once; the log puts them in one order, and no two
// share an address, nor does anybody lose one.
func TestNoAddressIsGivenTwice(t *testing.T) {
	c := newCluster(t)
	seen := map[netip.Addr]string{}
	for i := range 400 {
		user := number("user", i)
		_, d := enrol(c, user, "phone")
		for _, a := range d.Addrs {
			if seen[a] != "" {
				t.Fatalf("%s is of %s and %s", a, seen[a], user)
			}
			seen[a] = user
		}
	}
}

func TestRefusedDeviceTakesNoAddress(t *testing.T) {
	c := newCluster(t)
	enrol(c, "alice", "laptop")
	for range 10 {
		if r := c.do(DeviceAdd{id("alice"), device("alice", "laptop")}); !errors.Is(r.Err, ErrExists) {
			t.Fatal(r.Err)
		}
	}
	if _, d := enrol(c, "bob", "laptop"); d.Addrs[0] != netip.MustParseAddr("10.77.0.3") {
		t.Errorf("the next address is %s", d.Addrs[0])
	}
}
