package netstack

import (
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"syscall"

	"golang.zx2c4.com/wireguard/device"
	"golang.zx2c4.com/wireguard/tun"

	"vpnd/internal/dataplane"
	"vpnd/internal/dataplane/bind"
)

// tunnel is the WireGuard device. It is configured by the text of the cross-platform
// configuration protocol, which its methods write; a difference at a time, never
// replace_peers: that would interrupt everyone.
type tunnel struct {
	dev    *device.Device
	bind   *bind.Bind
	listen netip.AddrPort
	key    dataplane.Key
}

// openTunnel starts WireGuard. It is the first thing that can fail, and leaves nothing
// behind when it does.
func openTunnel(g dataplane.Gateway, t tun.Device, log *slog.Logger) (*tunnel, error) {
	// Try the port first: what fails inside the device cannot be undone.
	b := bind.New(g.Listen.Addr())
	if _, _, err := b.Open(g.Listen.Port()); err != nil {
		return nil, listenError(g.Listen, err)
	}
	b.Close()
	dev := device.NewDevice(t, b, &device.Logger{
		Verbosef: device.DiscardLogf,
		Errorf:   func(format string, args ...any) { log.Warn("wireguard-go", "why", fmt.Sprintf(format, args...)) },
	})
	w := &tunnel{dev: dev, bind: b, listen: g.Listen, key: g.PrivateKey}
	text := fmt.Sprintf("private_key=%s\nlisten_port=%d\n", hex.EncodeToString(g.PrivateKey[:]), g.Listen.Port())
	if err := dev.IpcSet(text); err != nil {
		return nil, fmt.Errorf("netstack: configure WireGuard: %w", err)
	}
	if err := dev.Up(); err != nil {
		return nil, listenError(g.Listen, err)
	}
	return w, nil
}

// listenError says what to do about a port that cannot be opened.
func listenError(a netip.AddrPort, err error) error {
	remedy := "choose another with --wireguard"
	if errors.Is(err, syscall.EADDRINUSE) {
		remedy = "another program uses it: stop that, or " + remedy
	}
	return fmt.Errorf("netstack: open UDP port %v for WireGuard: %w (%s)", a, err, remedy)
}

// set changes the near end's key and port where they differ.
func (w *tunnel) set(g dataplane.Gateway) error {
	if g.PrivateKey != w.key {
		if err := w.dev.IpcSet("private_key=" + hex.EncodeToString(g.PrivateKey[:]) + "\n"); err != nil {
			return fmt.Errorf("netstack: set WireGuard's key: %w", err)
		}
		w.key = g.PrivateKey
	}
	if g.Listen != w.listen {
		old := w.bind.SetAddr(g.Listen.Addr())
		if err := w.dev.IpcSet(fmt.Sprintf("listen_port=%d\n", g.Listen.Port())); err != nil {
			w.bind.SetAddr(old)
			back := w.dev.IpcSet(fmt.Sprintf("listen_port=%d\n", w.listen.Port()))
			return errors.Join(listenError(g.Listen, err), back)
		}
		w.listen = g.Listen
	}
	return nil
}

// peers removes and puts WireGuard peers.
func (w *tunnel) peers(remove, put []dataplane.Device) error {
	if len(remove)+len(put) == 0 {
		return nil
	}
	var s strings.Builder
	for _, d := range remove {
		fmt.Fprintf(&s, "public_key=%s\nremove=true\n", hex.EncodeToString(d.PublicKey[:]))
	}
	for _, d := range put {
		fmt.Fprintf(&s, "public_key=%s\npreshared_key=%s\nreplace_allowed_ips=true\n",
			hex.EncodeToString(d.PublicKey[:]), hex.EncodeToString(d.PresharedKey[:]))
		for _, a := range d.Addrs {
			fmt.Fprintf(&s, "allowed_ip=%v\n", netip.PrefixFrom(a, a.BitLen()))
		}
	}
	if err := w.dev.IpcSet(s.String()); err != nil {
		names := make([]string, 0, len(remove)+len(put))
		for _, d := range slices.Concat(remove, put) {
			names = append(names, d.Name)
		}
		return fmt.Errorf("netstack: change WireGuard peers of %.200s: %w", strings.Join(names, ", "), err)
	}
	return nil
}

func (w *tunnel) close() { w.dev.Close() }
