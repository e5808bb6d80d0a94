// Package selftest is a WireGuard client inside the process, which tries a gateway as a
// device would. It knows nothing of the gateway's inside.
package selftest

import (
	"bufio"
	"context"
	"crypto/ecdh"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"time"

	"golang.zx2c4.com/wireguard/conn"
	"golang.zx2c4.com/wireguard/device"
	"golang.zx2c4.com/wireguard/tun/netstack"

	"vpnd/internal/doctor"
)

// wait bounds a test. A handshake on this host takes some milliseconds.
const wait = 4 * time.Second

// farewell is for the connection's last packets: the gateway would send its own again, to
// whoever has the address next.
const farewell = 20 * time.Millisecond

const (
	mtu  = 1280    // what every way carries
	page = 1 << 20 // bytes that are read of it
)

// Gateway is who is tried.
type Gateway struct {
	PublicKey [32]byte
	At        netip.AddrPort // WireGuard's
	Page      netip.Addr     // the gateway's address in the tunnel
}

// NewKey makes a key pair that nobody keeps.
func NewKey() (private, public [32]byte, err error) {
	k, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		return private, public, fmt.Errorf("making a key: %w", err)
	}
	return [32]byte(k.Bytes()), [32]byte(k.PublicKey().Bytes()), nil
}

// Run shakes hands and fetches the page. Its error is doctor.ErrNoHandshake or ErrNoPage
// where one of these stopped it.
func Run(ctx context.Context, g Gateway, private [32]byte, addrs []netip.Addr) error {
	ctx, stop := context.WithTimeout(ctx, wait)
	defer stop()
	tun, stack, err := netstack.CreateNetTUN(addrs, nil, mtu)
	if err != nil {
		return fmt.Errorf("making a client: %w", err)
	}
	dev := device.NewDevice(tun, conn.NewDefaultBind(), device.NewLogger(device.LogLevelSilent, ""))
	defer dev.Close()
	err = dev.IpcSet(fmt.Sprintf("private_key=%s\npublic_key=%s\nendpoint=%s\nallowed_ip=%s/%d\n",
		hex.EncodeToString(private[:]), hex.EncodeToString(g.PublicKey[:]), g.At, g.Page, g.Page.BitLen()))
	if err == nil {
		err = dev.Up()
	}
	if err != nil {
		return fmt.Errorf("making a client: %w", err)
	}
	err = fetch(ctx, stack, g.Page)
	time.Sleep(farewell)
	switch {
	case err == nil:
		return nil
	case !shaken(dev):
		return doctor.ErrNoHandshake
	case ctx.Err() != nil:
		err = fmt.Errorf("nothing came within %s", wait)
	}
	return fmt.Errorf("%w: %w", doctor.ErrNoPage, err)
}

// fetch gets the page as a browser does.
func fetch(ctx context.Context, stack *netstack.Net, at netip.Addr) error {
	c := http.Client{
		Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
			return stack.DialContext(ctx, network, addr)
		}},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	host := at.String()
	if at.Is6() {
		host = "[" + host + "]"
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+host+"/", nil)
	if err != nil {
		return err
	}
	a, err := c.Do(r)
	if err != nil {
		return err
	}
	defer a.Body.Close()
	// Nobody's device: the page says so, with 404. It has asked the state then.
	if a.StatusCode != http.StatusNotFound && a.StatusCode != http.StatusOK || !strings.HasPrefix(a.Header.Get("Content-Type"), "text/html") {
		return fmt.Errorf("it answers %s, %q", a.Status, a.Header.Get("Content-Type"))
	}
	if _, err := io.Copy(io.Discard, io.LimitReader(a.Body, page)); err != nil {
		return fmt.Errorf("reading it: %w", err)
	}
	return nil
}

// shaken says whether there was a handshake.
func shaken(dev *device.Device) bool {
	text, err := dev.IpcGet()
	if err != nil {
		return false
	}
	for s := bufio.NewScanner(strings.NewReader(text)); s.Scan(); {
		if v, ok := strings.CutPrefix(s.Text(), "last_handshake_time_sec="); ok && v != "0" {
			return true
		}
	}
	return false
}
