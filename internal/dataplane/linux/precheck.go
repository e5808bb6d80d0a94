package linux

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"

	"golang.org/x/sys/unix"
	"golang.zx2c4.com/wireguard/wgctrl"

	"vpnd/internal/dataplane"
)

// Precheck says in one line what keeps a gateway g from starting on this host: an
// interface name or UDP port that is taken, an address range that collides with the
// host's routes, another vpnd. It changes nothing. The first Set checks the same.
func Precheck(_ context.Context, c dataplane.Config, g dataplane.Gateway) error {
	wg, err := wgctrl.New()
	if err != nil {
		return fmt.Errorf("opening WireGuard's control interface: %w", err)
	}
	defer wg.Close()
	lock, err := takeLock()
	if err != nil {
		return err
	}
	defer lock.Close()
	return precheck(c, g, wg)
}

func precheck(c dataplane.Config, g dataplane.Gateway, wg *wgctrl.Client) error {
	if err := checkName(c.Interface); err != nil {
		return err
	}
	if len(g.Addrs) == 0 || len(g.Network) == 0 {
		return errors.New("the tunnel has no network: give one with --network")
	}
	l, err := findLink(c.Interface)
	if err != nil {
		return err
	}
	if l != nil {
		if err := adoptable(l, wg, g.PrivateKey); err != nil {
			return err
		}
	} else {
		if err := checkUAPI(c.Interface); err != nil {
			return err
		}
		if err := checkPort(g.Listen); err != nil {
			return err
		}
	}
	routes, err := readRoutes()
	if err != nil {
		return err
	}
	if n, r, ok := collision(g.Network, routes, c.Interface); ok {
		return fmt.Errorf("%w: %s overlaps this host's %s; choose another range with --network", ErrCollision, n, r)
	}
	return nil
}

// checkUAPI finds a WireGuard of somebody else's that serves our interface's name, maybe
// in another network namespace: the sockets are per host.
func checkUAPI(iface string) error {
	c, err := net.Dial("unix", "/var/run/wireguard/"+iface+".sock")
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, unix.ECONNREFUSED): // none, or nobody's any more
		return nil
	case err != nil:
		return fmt.Errorf("whether another process serves WireGuard as %s could not be seen: %w; give vpnd's user access, remove the socket if it is nobody's, or choose another name with --interface", iface, err)
	}
	c.Close()
	return fmt.Errorf("%w: another process serves WireGuard as %s (/var/run/wireguard/%s.sock); stop it, or choose another with --interface", ErrInterfaceTaken, iface, iface)
}

// checkPort tries the UDP port. WireGuard listens on all addresses, whatever is asked.
func checkPort(a netip.AddrPort) error {
	if a.Port() == 0 {
		return nil
	}
	c, err := net.ListenPacket("udp", fmt.Sprintf(":%d", a.Port()))
	if err == nil {
		return c.Close()
	}
	if errors.Is(err, unix.EADDRINUSE) {
		return fmt.Errorf("%w: UDP %d for WireGuard is taken; free it, or choose another with --wireguard", ErrPortInUse, a.Port())
	}
	return fmt.Errorf("trying UDP port %d for WireGuard: %w", a.Port(), err)
}
