package linux

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// route is what matters of a route of the host's.
type route struct {
	dst    netip.Prefix // 0.0.0.0/0 or ::/0 for the default
	ifaces []string     // by which it leaves; several with multipath
	local  bool         // an address of the host's own
}

func (r route) String() string {
	if r.local {
		return fmt.Sprintf("address %s on %s", r.dst.Addr(), first(r.ifaces))
	}
	return fmt.Sprintf("route %s by %s", r.dst, first(r.ifaces))
}

func first(s []string) string {
	if len(s) == 0 {
		return "no interface"
	}
	return s[0]
}

// collision finds the first route or address of the host's that one of the tunnel's
// prefixes overlaps. The default route, and what goes by our own interface, is none.
func collision(network []netip.Prefix, routes []route, ours string) (netip.Prefix, route, bool) {
	for _, n := range network {
		for _, r := range routes {
			if r.dst.Bits() > 0 && len(r.ifaces) > 0 && !slices.Contains(r.ifaces, ours) && n.Overlaps(r.dst) {
				return n, r, true
			}
		}
	}
	return netip.Prefix{}, route{}, false
}

// outputs are the interfaces by which the networks behind the gateway are reached.
type outputs struct{ v4, v6 []string } // sorted

// findOutputs looks for the interfaces that lead to targets: by the routes inside a
// target, and by the longest one around it.
func findOutputs(targets []netip.Prefix, routes []route, ours string) outputs {
	var out outputs
	for _, t := range targets {
		t = t.Masked()
		var around route
		var leave []string
		for _, r := range routes {
			switch {
			case r.local || r.dst.Addr().Is4() != t.Addr().Is4() || !r.dst.Overlaps(t):
			case r.dst.Bits() > t.Bits():
				leave = append(leave, r.ifaces...)
			case !around.dst.IsValid() || r.dst.Bits() > around.dst.Bits():
				around = r
			}
		}
		for _, i := range append(leave, around.ifaces...) {
			if i == ours || i == "lo" {
				continue
			}
			if t.Addr().Is4() {
				out.v4 = append(out.v4, i)
			} else {
				out.v6 = append(out.v6, i)
			}
		}
	}
	for _, s := range []*[]string{&out.v4, &out.v6} {
		slices.Sort(*s)
		*s = slices.Compact(*s)
	}
	return out
}

// readRoutes reads the main table, and the host's own addresses from the local one.
func readRoutes() ([]route, error) {
	links, err := retryDump(netlink.LinkList)
	if err != nil {
		return nil, fmt.Errorf("listing the interfaces: %w", err)
	}
	names := map[int]string{}
	for _, l := range links {
		names[l.Attrs().Index] = l.Attrs().Name
	}
	var out []route
	for _, table := range []int{unix.RT_TABLE_MAIN, unix.RT_TABLE_LOCAL} {
		for _, f := range families() {
			l, err := retryDump(func() ([]netlink.Route, error) {
				return netlink.RouteListFiltered(f, &netlink.Route{Table: table}, netlink.RT_FILTER_TABLE)
			})
			if err != nil {
				return nil, fmt.Errorf("listing the routes: %w", err)
			}
			for _, r := range l {
				if x, ok := toRoute(r, f, table, names); ok {
					out = append(out, x)
				}
			}
		}
	}
	return out, nil
}

func toRoute(r netlink.Route, family, table int, names map[int]string) (route, bool) {
	out := route{dst: netip.PrefixFrom(netip.IPv4Unspecified(), 0), local: table == unix.RT_TABLE_LOCAL}
	if family == unix.AF_INET6 {
		out.dst = netip.PrefixFrom(netip.IPv6Unspecified(), 0)
	}
	if r.Dst != nil {
		a, ok := netip.AddrFromSlice(r.Dst.IP)
		if !ok {
			return route{}, false
		}
		bits, _ := r.Dst.Mask.Size()
		out.dst = netip.PrefixFrom(a.Unmap(), bits)
	}
	want := unix.RTN_UNICAST
	if out.local {
		want = unix.RTN_LOCAL
	}
	if r.Type != want || out.dst.Addr().IsLoopback() {
		return route{}, false
	}
	for _, i := range append([]int{r.LinkIndex}, hops(r)...) {
		if n := names[i]; n != "" {
			out.ifaces = append(out.ifaces, n)
		}
	}
	return out, true
}

func hops(r netlink.Route) []int {
	var out []int
	for _, h := range r.MultiPath {
		out = append(out, h.LinkIndex)
	}
	return out
}

// retryDump reads again what changed while it was read.
func retryDump[T any](list func() ([]T, error)) ([]T, error) {
	for range 5 {
		l, err := list()
		if !errors.Is(err, netlink.ErrDumpInterrupted) {
			return l, err
		}
	}
	return list()
}
