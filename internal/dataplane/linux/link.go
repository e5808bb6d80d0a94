package linux

import (
	"crypto/subtle"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
	"golang.zx2c4.com/wireguard/wgctrl"

	"vpnd/internal/dataplane"
	"vpnd/internal/dataplane/line"
)

// link is the WireGuard interface while it exists.
type link struct {
	name   string
	index  int
	mtu    int
	why    string  // it has this MTU
	given  int     // the MTU that it was given last
	engine *engine // wireguard-go in this process; nil with the kernel's WireGuard
}

// fit finds the tunnel's MTU: the one set by hand, or what the host's lines carry.
func (p *Plane) fit() (mtu int, why string, err error) {
	g := p.want.gateway
	if g.MTU != 0 {
		return g.MTU, fmt.Sprintf("MTU %d (set by hand)", g.MTU), nil
	}
	l, err := line.Read(p.c.Interface)
	if err != nil {
		return 0, "", err
	}
	mtu = l.Tunnel(p.ipv6 && slices.ContainsFunc(g.Network, func(n netip.Prefix) bool { return n.Addr().Is6() }))
	return mtu, l.Why(mtu), nil
}

// refit changes the MTU that the interface is to have.
func (p *Plane) refit() error {
	mtu, why, err := p.fit()
	if err != nil {
		return err
	}
	if p.link != nil {
		if mtu != p.link.mtu {
			p.c.Log.Info("the tunnel has another MTU", "what", "mtu", "why", why)
		}
		p.link.mtu, p.link.why = mtu, why
	}
	return nil
}

// findLink finds an interface by name; nil if there is none.
func findLink(name string) (netlink.Link, error) {
	l, err := netlink.LinkByName(name)
	var none netlink.LinkNotFoundError
	if errors.As(err, &none) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("looking for interface %s: %w", name, err)
	}
	return l, nil
}

// adoptable says whether an interface of our name may be used as it is: a kernel
// WireGuard interface that has our key was left by a vpnd that was killed.
func adoptable(l netlink.Link, wg *wgctrl.Client, key dataplane.Key) error {
	name := l.Attrs().Name
	taken := fmt.Errorf("%w: %s exists already (%s); remove it, or choose another with --interface", ErrInterfaceTaken, name, l.Type())
	if l.Type() != "wireguard" {
		return taken
	}
	d, err := wg.Device(name)
	if err != nil {
		return fmt.Errorf("reading WireGuard interface %s: %w", name, err)
	}
	if k := clamped(key); subtle.ConstantTimeCompare(d.PrivateKey[:], k[:]) != 1 {
		return taken
	}
	return nil
}

// makeLink makes the interface, or adopts the one that is there. It is down, and has
// neither key nor addresses, when it is new.
func (p *Plane) makeLink(key dataplane.Key) (*link, error) {
	name := p.c.Interface
	l, err := findLink(name)
	if err != nil {
		return nil, err
	}
	mtu, why, err := p.fit()
	if err != nil {
		return nil, err
	}
	if l != nil {
		if err := adoptable(l, p.wg, key); err != nil {
			return nil, err
		}
		return &link{name: name, index: l.Attrs().Index, mtu: mtu, why: why}, nil
	}
	if p.o.WireGuard != "go" {
		err := netlink.LinkAdd(&netlink.Wireguard{LinkAttrs: netlink.LinkAttrs{Name: name, MTU: mtu}})
		if err == nil {
			l, err := netlink.LinkByName(name)
			if err != nil {
				return nil, fmt.Errorf("finding the new interface %s: %w", name, err)
			}
			// The generic netlink family may have come with the module just now.
			if c, err := wgctrl.New(); err == nil {
				p.wg = c // the former has nothing open: there was no family
			}
			return &link{name: name, index: l.Attrs().Index, mtu: mtu, why: why}, nil
		}
		if p.o.WireGuard == "kernel" || !errors.Is(err, unix.EOPNOTSUPP) {
			return nil, fmt.Errorf("making WireGuard interface %s: %w", name, err)
		}
	}
	e, err := startEngine(name, mtu, p.c.Log, p.beforeForeignSet, p.foreignSet)
	if err != nil {
		return nil, err
	}
	l, err = netlink.LinkByName(name)
	if err != nil {
		e.close()
		return nil, fmt.Errorf("finding the new interface %s: %w", name, err)
	}
	return &link{name: name, index: l.Attrs().Index, mtu: mtu, why: why, engine: e}, nil
}

// renew makes wireguard-go's interface anew under it.
func (l *link) renew() error {
	if k, err := findLink(l.name); err != nil {
		return err
	} else if k != nil && k.Attrs().Index != l.index {
		return fmt.Errorf("%w: %s is somebody else's now (%s); remove it", ErrInterfaceTaken, l.name, k.Type())
	}
	if err := l.engine.tun.renew(l.mtu); err != nil {
		return err
	}
	k, err := netlink.LinkByName(l.name)
	if err != nil {
		return fmt.Errorf("finding the new interface %s: %w", l.name, err)
	}
	l.index = k.Attrs().Index
	return nil
}

// remove takes the interface away. Under another name it is still ours.
func (l *link) remove() error {
	if l.engine != nil {
		l.engine.close()
		return nil
	}
	k, err := netlink.LinkByIndex(l.index)
	if err != nil || k.Type() != "wireguard" {
		return nil // gone already; an index is used again by something else
	}
	if err := netlink.LinkDel(k); err != nil && !errors.Is(err, unix.ENODEV) {
		return err
	}
	return nil
}

// present says whether the interface is there as we made it.
func (l *link) present() (netlink.Link, bool, error) {
	k, err := findLink(l.name)
	if err != nil {
		return nil, false, err
	}
	if k == nil || k.Attrs().Index != l.index || l.engine.dead() {
		return nil, false, nil
	}
	return k, true, nil
}
