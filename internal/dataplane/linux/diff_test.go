package linux

import (
	"net"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"vpnd/internal/dataplane"
)

func prefix(s string) netip.Prefix { return netip.MustParsePrefix(s) }

func TestWantRules(t *testing.T) {
	got := wantRules("vpn0", network, guards{v4: []string{"eth0"}, all6: true})
	var lines []string
	for _, r := range got {
		lines = append(lines, strings.TrimPrefix(r.String(), "routing rule "))
	}
	want := []string{
		"70 iif lo to 10.77.0.0/16 lookup main",
		"71 to 10.77.0.0/16 fwmark 0x8000000/0x8000000 lookup main",
		"72 to 10.77.0.0/16 prohibit",
		"73 iif vpn0 fwmark 0x8000000/0x8000000 lookup main",
		"74 iif vpn0 prohibit",
		"75 iif eth0 blackhole",
		"70 (IPv6) iif lo to fd77::/64 lookup main",
		"71 (IPv6) to fd77::/64 fwmark 0x8000000/0x8000000 lookup main",
		"72 (IPv6) to fd77::/64 prohibit",
		"73 (IPv6) iif vpn0 fwmark 0x8000000/0x8000000 lookup main",
		"74 (IPv6) iif vpn0 prohibit",
		"75 (IPv6) not iif lo blackhole",
	}
	if !slices.Equal(lines, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(lines, "\n"), strings.Join(want, "\n"))
	}
}

func TestDiffRules(t *testing.T) {
	a := rule{family: unix.AF_INET, prio: 70, iif: "lo", action: unix.RTN_UNICAST}
	b := rule{family: unix.AF_INET, prio: 72, action: unix.RTN_PROHIBIT}
	odd := b
	odd.other = " attribute 2"
	for _, c := range []struct {
		name                   string
		have, want, add, remov []rule
	}{
		{"nothing there", nil, []rule{a, b}, []rule{a, b}, nil},
		{"all there", []rule{b, a}, []rule{a, b}, nil, nil},
		{"one twice", []rule{a, a, b}, []rule{a, b}, nil, []rule{a}},
		{"one that narrows", []rule{a, odd}, []rule{a, b}, []rule{b}, []rule{odd}},
		{"stop", []rule{a, b}, nil, nil, []rule{a, b}},
	} {
		add, del := diffRules(c.have, c.want)
		if !slices.Equal(add, c.add) || !slices.Equal(del, c.remov) {
			t.Errorf("%s: add %v, delete %v; want %v, %v", c.name, add, del, c.add, c.remov)
		}
	}
}

func TestDiffAddrs(t *testing.T) {
	have := []netip.Prefix{prefix("10.77.0.1/24"), prefix("fd77::1/64"), prefix("fe80::1/64"), prefix("1.2.3.4/32")}
	want := []netip.Prefix{prefix("10.77.0.1/16"), prefix("fd77::1/64")}
	add, del := diffAddrs(have, want)
	if !slices.Equal(add, want[:1]) || !slices.Equal(del, []netip.Prefix{have[0], have[3]}) {
		t.Errorf("add %v, delete %v", add, del)
	}
	if got := gatewayPrefixes(gwAddrs, network, false); !slices.Equal(got, []netip.Prefix{prefix("10.77.0.1/16")}) {
		t.Errorf("without IPv6: %v", got)
	}
}

func TestCollision(t *testing.T) {
	routes := []route{
		{dst: prefix("0.0.0.0/0"), ifaces: []string{"eth0"}},
		{dst: prefix("10.0.0.0/8"), ifaces: []string{"eth1"}},
		{dst: prefix("172.17.0.0/16"), ifaces: []string{"docker0"}},
		{dst: prefix("10.77.0.0/16"), ifaces: []string{"vpn0"}},
		{dst: prefix("192.168.1.7/32"), ifaces: []string{"eth0"}, local: true},
		{dst: prefix("10.99.0.0/16")}, // leads nowhere
	}
	for _, c := range []struct{ network, want string }{
		{"10.77.0.0/16", "route 10.0.0.0/8 by eth1"},
		{"172.16.0.0/12", "route 172.17.0.0/16 by docker0"},
		{"192.168.0.0/16", "address 192.168.1.7 on eth0"},
		{"100.64.0.0/10", ""},
		{"fd77::/64", ""},
	} {
		got := ""
		if _, r, ok := collision([]netip.Prefix{prefix(c.network)}, routes, "vpn0"); ok {
			got = r.String()
		}
		if got != c.want {
			t.Errorf("%s: %q, want %q", c.network, got, c.want)
		}
	}
}

func TestFindOutputs(t *testing.T) {
	routes := []route{
		{dst: prefix("0.0.0.0/0"), ifaces: []string{"eth0"}},
		{dst: prefix("192.168.0.0/16"), ifaces: []string{"eth1"}},
		{dst: prefix("192.168.7.0/24"), ifaces: []string{"eth2", "eth3"}},
		{dst: prefix("192.168.7.1/32"), ifaces: []string{"eth9"}, local: true},
		{dst: prefix("10.77.0.0/16"), ifaces: []string{"vpn0"}},
		{dst: prefix("::/0"), ifaces: []string{"eth6"}},
	}
	for _, c := range []struct {
		target string
		v4, v6 []string
	}{
		{"192.168.7.0/24", []string{"eth2", "eth3"}, nil},
		{"192.168.0.0/20", []string{"eth1", "eth2", "eth3"}, nil}, // partly by the wider route
		{"192.168.8.0/24", []string{"eth1"}, nil},
		{"203.0.113.0/24", []string{"eth0"}, nil},
		{"0.0.0.0/0", []string{"eth0", "eth1", "eth2", "eth3"}, nil},
		{"2001:db8::/32", nil, []string{"eth6"}},
	} {
		got := findOutputs([]netip.Prefix{prefix(c.target)}, routes, "vpn0")
		if !slices.Equal(got.v4, c.v4) || !slices.Equal(got.v6, c.v6) {
			t.Errorf("%s: %v", c.target, got)
		}
	}
}

// wgPeer is a peer as WireGuard shows it.
func wgPeer(d dataplane.Device, addrs ...string) wgtypes.Peer {
	p := wgtypes.Peer{PublicKey: wgtypes.Key(d.PublicKey), PresharedKey: wgtypes.Key(d.PresharedKey)}
	for _, a := range addrs {
		_, n, _ := net.ParseCIDR(a)
		p.AllowedIPs = append(p.AllowedIPs, *n)
	}
	return p
}

func wgAddrs(p wgtypes.PeerConfig) (out []string) {
	for _, n := range p.AllowedIPs {
		out = append(out, n.String())
	}
	return out
}

func TestDiffPeers(t *testing.T) {
	a, _ := testDevice(t, 2)
	b, _ := testDevice(t, 3)
	a.Addrs, b.Addrs = a.Addrs[:1], b.Addrs[:1]
	want := map[dataplane.Key]dataplane.Device{a.PublicKey: a, b.PublicKey: b}
	stranger := dataplane.Device{PublicKey: dataplane.Key{1}}

	if d := diffPeers([]wgtypes.Peer{wgPeer(b, "10.77.0.3/32"), wgPeer(a, "10.77.0.2/32")}, want); d.shrink != nil || d.put != nil || d.drift != nil {
		t.Errorf("what is as it should be is changed: %+v", d)
	}
	// b has a's address and a wider one beside its own: it loses both before a is put.
	d := diffPeers([]wgtypes.Peer{wgPeer(stranger), wgPeer(b, "10.77.0.3/32", "10.77.0.2/32", "10.77.0.0/24"), wgPeer(a)}, want)
	if len(d.shrink) != 2 || !d.shrink[0].Remove || d.shrink[0].PublicKey != wgtypes.Key(stranger.PublicKey) {
		t.Fatalf("shrink: %+v", d.shrink)
	}
	if s := d.shrink[1]; s.PublicKey != wgtypes.Key(b.PublicKey) || !s.UpdateOnly || !s.ReplaceAllowedIPs || s.Remove ||
		!slices.Equal(wgAddrs(s), []string{"10.77.0.3/32"}) {
		t.Errorf("b shrinks to %+v", s)
	}
	if len(d.put) != 2 {
		t.Errorf("put: %+v", d.put)
	}
	for _, p := range d.put {
		if p.Remove || !p.ReplaceAllowedIPs || len(p.AllowedIPs) != 1 || p.PresharedKey == nil {
			t.Errorf("put: %+v", p)
		}
	}
	wantDrift := []dataplane.Drift{{What: "peer " + shortKey(stranger.PublicKey), Was: "added"}, {What: "peer user/dev3", Was: "changed"}, {What: "peer user/dev2", Was: "changed"}}
	if !reflect.DeepEqual(d.drift, wantDrift) {
		t.Errorf("drift: %v", d.drift)
	}
	other := a
	other.PresharedKey = dataplane.Key{9}
	if d := diffPeers([]wgtypes.Peer{wgPeer(other, "10.77.0.2/32"), wgPeer(b, "10.77.0.3/32")}, want); d.shrink != nil || len(d.put) != 1 {
		t.Errorf("another preshared key: %+v", d)
	}
}

// A device that is given a removed one's address gets it after the removal; one that
// moves loses its former address first.
func TestApplyChange(t *testing.T) {
	key := newKey(t)
	a, _ := testDevice(t, 2)
	b, _ := testDevice(t, 3)
	heir, _ := testDevice(t, 2)
	d := newDesired(dataplane.State{Gateway: gateway(key), Devices: []dataplane.Device{a, b}})
	gone, shrink, put, moved := d.apply(dataplane.Change{PutDevices: []dataplane.Device{heir}, RemoveDevices: []dataplane.Device{a}})
	if len(gone) != 1 || gone[0].ID != a.ID || len(shrink) != 0 || len(put) != 1 || len(moved) != 0 {
		t.Errorf("heir: %v %v %v %v", gone, shrink, put, moved)
	}
	p := Plane{leaving: map[dataplane.Key]dataplane.Device{a.PublicKey: a, b.PublicKey: b}}
	if room := p.makeRoomLocked([]dataplane.Device{heir}); len(room) != 1 || !room[0].Remove || room[0].PublicKey != wgtypes.Key(a.PublicKey) || len(p.leaving) != 1 {
		t.Errorf("room for the heir: %v, and %v stay", room, p.leaving)
	}
	if room := p.makeRoomLocked([]dataplane.Device{b}); len(room) != 0 || len(p.leaving) != 0 {
		t.Errorf("room for the one that comes back: %v, and %v stay", room, p.leaving)
	}
	if _, ok := d.devices[a.PublicKey]; ok || len(d.devices) != 2 {
		t.Errorf("desired: %v", d.devices)
	}
	_, shrink, put, moved = d.apply(dataplane.Change{PutDevices: []dataplane.Device{b}})
	if shrink != nil || put != nil || moved != nil {
		t.Errorf("an unchanged device is touched: %v %v %v", shrink, put, moved)
	}
	next := b
	next.Addrs = []netip.Addr{netip.MustParseAddr("10.77.0.9"), b.Addrs[1]}
	_, shrink, put, moved = d.apply(dataplane.Change{PutDevices: []dataplane.Device{next}})
	if len(shrink) != 1 || !slices.Equal(wgAddrs(shrink[0]), []string{"fd77::3/128"}) || len(put) != 1 ||
		len(moved) != 1 || !slices.Equal(moved[0].Addrs, b.Addrs[:1]) {
		t.Errorf("moved: %v %v %v", shrink, put, moved)
	}
	if len(b.Addrs) != 2 || b.Addrs[1] != netip.MustParseAddr("fd77::3") {
		t.Errorf("the caller's device was changed: %v", b)
	}
	self := dataplane.Device{PublicKey: pub(key)}
	if _, shrink, put, _ := d.apply(dataplane.Change{PutDevices: []dataplane.Device{self}}); shrink != nil || put != nil {
		t.Errorf("a peer with the gateway's own key: %v %v", shrink, put)
	}
}

func TestCheckName(t *testing.T) {
	for name, ok := range map[string]bool{"vpn0": true, "a.b-c_d": true, "": false, "lo": false, "all": false, ".": false,
		"..": false, "a/b": false, "abcdefghijklmnop": false, "vpn 0": false, "vpn0\n": false, "ä": false} {
		if err := checkName(name); (err == nil) != ok {
			t.Errorf("%q: %v", name, err)
		}
	}
}
