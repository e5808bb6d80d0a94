package linux

import (
	"context"
	"encoding/base64"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"vpnd/internal/dataplane"
)

// bed is a gateway (the test's own namespace), a client and a resource in namespaces of
// their own:
//
//	client 10.99.1.2 -- 10.99.1.1 gateway 192.0.2.1 -- 192.0.2.2 resource
//
// with IPv6 fd99:1::/64 and 2001:db8:2::/64 beside it.
type bed struct {
	t        *testing.T
	client   string // namespaces
	resource string

	mu    sync.Mutex
	drift []dataplane.Drift
	logs  []string
}

const iface = "vpn0"

var (
	network = []netip.Prefix{netip.MustParsePrefix("10.77.0.0/16"), netip.MustParsePrefix("fd77::/64")}
	gwAddrs = []netip.Addr{netip.MustParseAddr("10.77.0.1"), netip.MustParseAddr("fd77::1")}
	behind  = []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24"), netip.MustParsePrefix("2001:db8:2::/64")}
)

func newBed(t *testing.T) *bed {
	needNet(t, "wg", "wireguard-go", "nft", "ping", "nc", "sysctl")
	b := &bed{t: t, client: "client", resource: "resource"}
	for _, line := range []string{
		"ip netns add client", "ip netns add resource",
		// Link-local addresses are of use at once without duplicate address detection.
		"sysctl -qw net.ipv6.conf.default.accept_dad=0",
		"ip netns exec client sysctl -qw net.ipv6.conf.default.accept_dad=0",
		"ip netns exec resource sysctl -qw net.ipv6.conf.default.accept_dad=0",
		"ip link add c0 type veth peer name eth0 netns client",
		"ip link add r0 type veth peer name eth0 netns resource",
		"ip addr add 10.99.1.1/24 dev c0", "ip -6 addr add fd99:1::1/64 dev c0 nodad", "ip link set c0 up",
		"ip addr add 192.0.2.1/24 dev r0", "ip -6 addr add 2001:db8:2::1/64 dev r0 nodad", "ip link set r0 up",
		"ip -n client link set lo up", "ip -n client addr add 10.99.1.2/24 dev eth0",
		"ip -n client -6 addr add fd99:1::2/64 dev eth0 nodad", "ip -n client link set eth0 up",
		"ip -n resource link set lo up", "ip -n resource addr add 192.0.2.2/24 dev eth0",
		"ip -n resource -6 addr add 2001:db8:2::2/64 dev eth0 nodad", "ip -n resource link set eth0 up",
		"ip -n resource route add default via 192.0.2.1", "ip -n resource -6 route add default via 2001:db8:2::1",
	} {
		run(t, line)
	}
	t.Cleanup(func() {
		for _, line := range []string{"ip link del c0", "ip link del r0", "ip netns del client", "ip netns del resource"} {
			if out, err := try(line); err != nil {
				t.Errorf("%s: %v: %s", line, err, out)
			}
		}
	})
	return b
}

// passFilter is a packet filter that permits everything through the tunnel: it carries
// the mark on what comes from the tunnel and what goes to it.
type passFilter struct{ t *testing.T }

var closedChannel = func() <-chan struct{} { c := make(chan struct{}); close(c); return c }()

func (f passFilter) Set(context.Context, dataplane.State) error {
	c := exec.Command("nft", "-f", "-")
	c.Stdin = strings.NewReader(fmt.Sprintf(`
table inet vpnd
delete table inet vpnd
table inet vpnd {
	chain pre {
		type filter hook prerouting priority -90
		iifname %q meta mark set meta mark or %#x
		ip daddr 10.77.0.0/16 meta mark set meta mark or %#x
		ip6 daddr fd77::/64 meta mark set meta mark or %#x
	}
}`, iface, Mark, Mark, Mark))
	if out, err := c.CombinedOutput(); err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	return nil
}
func (passFilter) Update(context.Context, dataplane.Change) error        { return nil }
func (passFilter) Told() <-chan struct{}                                 { return closedChannel }
func (passFilter) Permits(context.Context, dataplane.Flow) (bool, error) { return true, nil }
func (passFilter) Complaints() []dataplane.Complaint                     { return nil }
func (passFilter) Detail() string                                        { return "" }
func (passFilter) Close() error {
	_, err := try("nft add table inet vpnd; nft delete table inet vpnd")
	return err
}

func (b *bed) options() Options {
	return Options{OpenFilter: func(context.Context, FilterConfig) (PacketFilter, error) { return passFilter{b.t}, nil }}
}

// writer takes lines.
type writer func(string)

func (w writer) Write(b []byte) (int, error) { w(string(b)); return len(b), nil }

func (b *bed) config() dataplane.Config {
	return dataplane.Config{
		Interface: iface, AppPort: 8080,
		OnDrift: func(d dataplane.Drift) { b.mu.Lock(); b.drift = append(b.drift, d); b.mu.Unlock() },
		Log: slog.New(slog.NewTextHandler(writer(func(line string) {
			b.mu.Lock()
			b.logs = append(b.logs, line)
			b.mu.Unlock()
		}), nil)),
	}
}

// plane makes a plane with s set; it is closed at the test's end.
func (b *bed) plane(o Options, s dataplane.State) *Plane {
	b.t.Helper()
	p, err := o.New(b.t.Context(), b.config())
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() {
		if err := p.Close(); err != nil {
			b.t.Error("Close:", err)
		}
		if b.t.Failed() {
			b.t.Logf("drift: %v\nlog: %s", b.drift, strings.Join(b.logs, "\n"))
		}
	})
	if err := p.Set(b.t.Context(), s); err != nil {
		b.t.Fatal("Set:", err)
	}
	return p
}

// drifted waits for a drift to be reported, and forgets all so far.
func (b *bed) drifted(what, was string) {
	b.t.Helper()
	eventually(b.t, fmt.Sprintf("a report that %s was %s", what, was), func() bool {
		b.mu.Lock()
		defer b.mu.Unlock()
		for _, d := range b.drift {
			if strings.Contains(d.What, what) && d.Was == was {
				return true
			}
		}
		return false
	})
	b.mu.Lock()
	b.drift = nil
	b.mu.Unlock()
}

// slow is how many times slower than others this machine is: an emulated one says so.
func slow() time.Duration {
	n, err := strconv.Atoi(os.Getenv("VPND_E2E_SLOW"))
	if err != nil || n < 1 {
		return 1
	}
	return time.Duration(n)
}

// eventually waits at most the 2 s in which things are put right.
func eventually(t *testing.T, what string, f func() bool) {
	t.Helper()
	limit := 2 * time.Second * slow()
	for end := time.Now().Add(limit); ; time.Sleep(20 * time.Millisecond) {
		if f() {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("after %v, not seen: %s", limit, what)
		}
	}
}

func newKey(t *testing.T) dataplane.Key {
	t.Helper()
	k, err := wgtypes.GeneratePrivateKey()
	if err != nil {
		t.Fatal(err)
	}
	k[0] |= 1 // as crypto/ecdh leaves it; WireGuard gives it back clamped
	return dataplane.Key(k)
}

func pub(k dataplane.Key) dataplane.Key { return dataplane.Key(wgtypes.Key(k).PublicKey()) }

func b64(k dataplane.Key) string { return base64.StdEncoding.EncodeToString(k[:]) }

func gateway(key dataplane.Key) dataplane.Gateway {
	return dataplane.Gateway{PrivateKey: key, Listen: netip.MustParseAddrPort("0.0.0.0:51820"), Addrs: gwAddrs, Network: network, Routes: behind}
}

func testDevice(t *testing.T, n int) (dataplane.Device, dataplane.Key) {
	k := newKey(t)
	return dataplane.Device{
		ID: fmt.Sprint("id", n), Name: fmt.Sprint("user/dev", n), PublicKey: pub(k), PresharedKey: newKey(t),
		Addrs: []netip.Addr{netip.AddrFrom4([4]byte{10, 77, 0, byte(n)}), netip.MustParseAddr(fmt.Sprintf("fd77::%x", n))},
	}, k
}

// connect starts Debian's wireguard-go in the client's namespace with the device's keys, and
// routes all that is behind the gateway into it.
func (b *bed) connect(d dataplane.Device, private, gw dataplane.Key) {
	b.t.Helper()
	b.connectFrom(b.client, "wgc0", "10.99.1.1", d, private, gw)
	for _, n := range behind {
		run(b.t, fmt.Sprintf("ip -n %s route add %s dev wgc0", b.client, n))
	}
}

// connectFrom does so in a namespace that reaches the gateway at an address, with the tunnel's
// own network alone.
func (b *bed) connectFrom(ns, name, at string, d dataplane.Device, private, gw dataplane.Key) {
	b.t.Helper()
	c := exec.Command("ip", "netns", "exec", ns, "wireguard-go", "-f", name)
	c.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := c.Start(); err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() { c.Process.Kill(); c.Wait() })
	eventually(b.t, "WireGuard's socket of "+name, func() bool {
		u, err := net.Dial("unix", "/var/run/wireguard/"+name+".sock")
		if err == nil {
			u.Close()
		}
		return err == nil
	})
	conf := b.t.TempDir() + "/wg.conf"
	text := fmt.Sprintf("[Interface]\nPrivateKey = %s\n[Peer]\nPublicKey = %s\nPresharedKey = %s\nAllowedIPs = 0.0.0.0/0, ::/0\nEndpoint = %s:51820\n",
		b64(private), b64(pub(gw)), b64(d.PresharedKey), at)
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		b.t.Fatal(err)
	}
	run(b.t, "wg setconf "+name+" "+conf)
	for _, a := range d.Addrs {
		run(b.t, fmt.Sprintf("ip -n %s addr add %s dev %s", ns, netip.PrefixFrom(a, a.BitLen()), name))
	}
	run(b.t, fmt.Sprintf("ip -n %s link set %s mtu 1420 up", ns, name))
	for _, n := range network {
		run(b.t, fmt.Sprintf("ip -n %s route add %s dev %s", ns, n, name))
	}
}

// pings says whether the client gets an answer from addr.
func (b *bed) pings(addr string) bool {
	_, err := try(fmt.Sprintf("ip netns exec %s ping -c1 -W1 %s", b.client, addr))
	return err == nil
}
