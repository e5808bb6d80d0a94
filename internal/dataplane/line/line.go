// Package line looks at the gateway's own lines to the outside, and fits a tunnel into
// them. It changes nothing on the host and needs no privilege.
package line

import (
	"errors"
	"fmt"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// MTUs of a tunnel, in bytes.
const (
	// Usual is what WireGuard's clients take: of 1500 bytes, IPv6 takes 40, UDP 8 and
	// WireGuard 32.
	Usual = 1420
	// Over IPv4 an outer packet has 60 bytes more than the inner one, over IPv6 80.
	over4, over6 = 60, 80
	// What carries IPv6 carries 1280 bytes (RFC 8200, section 5); IPv4 must carry 576.
	least6, least4 = 1280, 576
)

// Line is the narrowest way out of the host, in each family. The zero value is unknown.
type Line struct {
	MTU4, MTU6 int    // 0: no way out in this family
	Name       string // of the narrowest one's interface
}

// Tunnel is the MTU of a tunnel that has IPv6 inside, or has not: never more than the
// usual one, since clients do not expect more, nor less than its packets need. Then outer
// packets leave in fragments.
func (l Line) Tunnel(v6 bool) int {
	mtu, least := Usual, least4
	if l.MTU4 > 0 {
		mtu = min(mtu, l.MTU4-over4)
	}
	if l.MTU6 > 0 {
		mtu = min(mtu, l.MTU6-over6)
	}
	if v6 {
		least = least6
	}
	return max(mtu, least)
}

// Read looks at the default routes. Where there is none, any interface that is up may be
// the way out, apart from ours.
func Read(ours string) (Line, error) {
	links, err := again(netlink.LinkList)
	if err != nil {
		return Line{}, fmt.Errorf("listing the interfaces: %w", err)
	}
	byIndex := map[int]netlink.LinkAttrs{}
	for _, k := range links {
		if a := k.Attrs(); a.Name != ours {
			byIndex[a.Index] = *a
		}
	}
	var l Line
	for _, family := range []int{unix.AF_INET, unix.AF_INET6} {
		routes, err := again(func() ([]netlink.Route, error) {
			return netlink.RouteListFiltered(family, &netlink.Route{Table: unix.RT_TABLE_MAIN}, netlink.RT_FILTER_TABLE|netlink.RT_FILTER_DST)
		})
		if errors.Is(err, unix.EAFNOSUPPORT) || errors.Is(err, unix.EOPNOTSUPP) {
			continue
		}
		if err != nil {
			return Line{}, fmt.Errorf("listing the default routes: %w", err)
		}
		for _, r := range routes {
			for _, index := range leavesBy(r) {
				if a, ok := byIndex[index]; ok {
					l.add(family, a.Name, carries(a.MTU, r.MTU))
				}
			}
		}
	}
	if l != (Line{}) {
		return l, nil
	}
	for _, a := range byIndex {
		if a.RawFlags&unix.IFF_UP != 0 && a.RawFlags&unix.IFF_LOOPBACK == 0 {
			l.add(unix.AF_INET6, a.Name, a.MTU)
		}
	}
	return l, nil
}

// leavesBy are the interfaces that a route leads to.
func leavesBy(r netlink.Route) []int {
	if r.Type != unix.RTN_UNICAST {
		return nil
	}
	out := []int{r.LinkIndex}
	for _, h := range r.MultiPath {
		out = append(out, h.LinkIndex)
	}
	return out
}

// carries is what a route carries by an interface: it may have an MTU of its own.
func carries(iface, route int) int {
	if route > 0 {
		return min(iface, route)
	}
	return iface
}

// add takes account of a way out.
func (l *Line) add(family int, name string, mtu int) {
	m, over := &l.MTU4, over4
	if family == unix.AF_INET6 {
		m, over = &l.MTU6, over6
	}
	if l.Name == "" || mtu-over < l.narrowest() {
		l.Name = name
	}
	if *m == 0 || mtu < *m {
		*m = mtu
	}
}

// narrowest is what a tunnel has by the narrowest way out so far.
func (l *Line) narrowest() int {
	n := 1 << 16
	if l.MTU4 > 0 {
		n = l.MTU4 - over4
	}
	if l.MTU6 > 0 {
		n = min(n, l.MTU6-over6)
	}
	return n
}

// Why says for people why a tunnel has the MTU that it has.
func (l Line) Why(mtu int) string {
	if mtu >= Usual || l.Name == "" {
		return fmt.Sprintf("MTU %d", mtu)
	}
	return fmt.Sprintf("MTU %d (the line %s is narrow)", mtu, l.Name)
}

// again reads anew what changed while it was read.
func again[T any](list func() ([]T, error)) ([]T, error) {
	for range 5 {
		l, err := list()
		if !errors.Is(err, netlink.ErrDumpInterrupted) {
			return l, err
		}
	}
	return list()
}
