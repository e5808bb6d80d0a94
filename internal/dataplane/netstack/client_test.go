package netstack

import (
	"context"
	"encoding/hex"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/crypto/curve25519"
	"golang.zx2c4.com/wireguard/conn"
	"golang.zx2c4.com/wireguard/device"
	wgnet "golang.zx2c4.com/wireguard/tun/netstack"

	"vpnd/internal/dataplane"
	"vpnd/internal/dataplane/line"
)

// The tests' tunnel.
var (
	gateway4 = netip.MustParseAddr("10.77.0.1")
	gateway6 = netip.MustParseAddr("fd77::1")
	network  = []netip.Prefix{netip.MustParsePrefix("10.77.0.0/16"), netip.MustParsePrefix("fd77::/64")}
)

// key is a deterministic private key, and its public half.
func key(n byte) (private, public dataplane.Key) {
	for i := range private {
		private[i] = n + byte(i)
	}
	private[0] &= 248
	private[31] = private[31]&127 | 64
	pub, err := curve25519.X25519(private[:], curve25519.Basepoint)
	if err != nil {
		panic(err)
	}
	return private, dataplane.Key(pub)
}

// testDevice is device n: its key is n's, its addresses end in n.
func testDevice(n byte, name string) dataplane.Device {
	_, pub := key(n)
	return dataplane.Device{
		ID: fmt.Sprintf("id-%d", n), Name: name, PublicKey: pub, PresharedKey: dataplane.Key{n, 1, 2, 3},
		Addrs: []netip.Addr{netip.AddrFrom4([4]byte{10, 77, 0, n}), netip.MustParseAddr(fmt.Sprintf("fd77::%x", n))},
	}
}

const gatewayKey = 200

// freePort is a UDP port that nothing uses.
func freePort(t testing.TB) uint16 {
	t.Helper()
	c, err := net.ListenUDP("udp", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	return uint16(c.LocalAddr().(*net.UDPAddr).Port)
}

func testGateway(t testing.TB) dataplane.Gateway {
	private, _ := key(gatewayKey)
	return dataplane.Gateway{
		PrivateKey: private,
		Listen:     netip.AddrPortFrom(netip.IPv4Unspecified(), freePort(t)),
		Addrs:      []netip.Addr{gateway4, gateway6},
		Network:    network,
	}
}

// newPlane makes a plane in state s.
func newPlane(t testing.TB, c dataplane.Config, s dataplane.State) *Plane {
	t.Helper()
	if c.Log == nil {
		c.Log = slog.New(slog.NewTextHandler(t.Output(), nil))
	}
	p, err := New(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close() })
	if err := p.Set(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	return p
}

// newClient is a WireGuard client in this process that talks to the plane over
// loopback: wireguard-go's own netstack, which shares nothing with the plane's.
func newClient(t testing.TB, n byte, g dataplane.Gateway) *wgnet.Net {
	t.Helper()
	d := testDevice(n, "")
	private, _ := key(n)
	_, near := key(gatewayKey)
	tun, n2, err := wgnet.CreateNetTUN(d.Addrs, nil, line.Usual)
	if err != nil {
		t.Fatal(err)
	}
	dev := device.NewDevice(tun, conn.NewDefaultBind(), device.NewLogger(device.LogLevelSilent, ""))
	t.Cleanup(dev.Close)
	err = dev.IpcSet(fmt.Sprintf("private_key=%s\npublic_key=%s\npreshared_key=%s\nendpoint=127.0.0.1:%d\nallowed_ip=0.0.0.0/0\nallowed_ip=::/0\n",
		hex.EncodeToString(private[:]), hex.EncodeToString(near[:]), hex.EncodeToString(d.PresharedKey[:]), g.Listen.Port()))
	if err != nil {
		t.Fatal(err)
	}
	if err := dev.Up(); err != nil {
		t.Fatal(err)
	}
	return n2
}

// httpClient fetches through the tunnel.
func httpClient(n *wgnet.Net) *http.Client {
	return &http.Client{
		Timeout: 10 * time.Second,
		Transport: &http.Transport{
			DisableKeepAlives: true,
			DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
				return n.DialContext(ctx, network, addr)
			},
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}
