package linux

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"vpnd/internal/dataplane"
)

// addresses lists the interface's addresses.
func addresses(k netlink.Link) ([]netip.Prefix, error) {
	list, err := retryDump(func() ([]netlink.Addr, error) { return netlink.AddrList(k, unix.AF_UNSPEC) })
	if err != nil {
		return nil, fmt.Errorf("listing the addresses of %s: %w", k.Attrs().Name, err)
	}
	var out []netip.Prefix
	for _, a := range list {
		if ip, ok := netip.AddrFromSlice(a.IP); ok {
			bits, _ := a.Mask.Size()
			out = append(out, netip.PrefixFrom(ip.Unmap(), bits))
		}
	}
	return out, nil
}

// repairLink gives the interface its addresses, MTU, routes to the network, and brings
// it up. It returns what was otherwise.
func (p *Plane) repairLink(k netlink.Link, rerouted bool) ([]dataplane.Drift, error) {
	var drift []dataplane.Drift
	name := k.Attrs().Name
	g := p.want.gateway
	have, err := addresses(k)
	if err != nil {
		return nil, err
	}
	add, del := diffAddrs(have, gatewayPrefixes(g.Addrs, g.Network, p.ipv6))
	for _, a := range del {
		if err := netlink.AddrDel(k, &netlink.Addr{IPNet: ipNet(a)}); err != nil && !errors.Is(err, unix.EADDRNOTAVAIL) {
			return drift, fmt.Errorf("removing address %s from %s: %w", a, name, err)
		}
		drift = append(drift, dataplane.Drift{What: fmt.Sprintf("address %s on %s", a, name), Was: "added"})
	}
	for _, a := range add {
		n := &netlink.Addr{IPNet: ipNet(a)}
		if a.Addr().Is6() {
			n.Flags = unix.IFA_F_NODAD // nobody else can have it: peers have no link layer
		}
		if err := netlink.AddrReplace(k, n); err != nil {
			return drift, fmt.Errorf("adding address %s to %s: %w", a, name, err)
		}
		drift = append(drift, dataplane.Drift{What: fmt.Sprintf("address %s on %s", a, name), Was: "removed"})
	}
	if k.Attrs().MTU != p.link.mtu {
		if err := netlink.LinkSetMTU(k, p.link.mtu); err != nil {
			return drift, fmt.Errorf("setting the MTU of %s to %d: %w", name, p.link.mtu, err)
		}
		if k.Attrs().MTU != p.link.given { // else the host's line has changed, or the setting
			drift = append(drift, dataplane.Drift{What: "MTU of " + name, Was: "changed"})
		}
	}
	p.link.given = p.link.mtu
	if k.Attrs().RawFlags&unix.IFF_UP == 0 {
		if err := netlink.LinkSetUp(k); err != nil {
			if errors.Is(err, unix.EADDRINUSE) {
				return drift, fmt.Errorf("%w: UDP %d for WireGuard is taken; free it, or choose another with --wireguard", ErrPortInUse, g.Listen.Port())
			}
			return drift, fmt.Errorf("bringing %s up: %w", name, err)
		}
		drift = append(drift, dataplane.Drift{What: "interface " + name, Was: "set down"})
		p.deaf = p.deaf || p.link.engine == nil
	}
	if !rerouted && len(drift) == 0 {
		return nil, nil
	}
	more, err := p.repairRoutes(k)
	return append(drift, more...), err
}

// repairRoutes puts the route to the network back, which the kernel made with the address.
func (p *Plane) repairRoutes(k netlink.Link) ([]dataplane.Drift, error) {
	var drift []dataplane.Drift
	g := p.want.gateway
	for _, a := range gatewayPrefixes(g.Addrs, g.Network, p.ipv6) {
		f, net := family(a.Addr()), a.Masked()
		if a.IsSingleIP() {
			continue
		}
		list, err := retryDump(func() ([]netlink.Route, error) {
			return netlink.RouteListFiltered(f, &netlink.Route{Table: unix.RT_TABLE_MAIN, LinkIndex: k.Attrs().Index, Dst: ipNet(net)},
				netlink.RT_FILTER_TABLE|netlink.RT_FILTER_OIF|netlink.RT_FILTER_DST)
		})
		if err != nil {
			return drift, fmt.Errorf("listing the routes by %s: %w", k.Attrs().Name, err)
		}
		if len(list) > 0 {
			continue
		}
		r := &netlink.Route{Table: unix.RT_TABLE_MAIN, LinkIndex: k.Attrs().Index, Dst: ipNet(net), Protocol: unix.RTPROT_KERNEL, Family: f}
		if f == unix.AF_INET {
			r.Scope, r.Src = unix.RT_SCOPE_LINK, a.Addr().AsSlice()
		} else {
			r.Priority = 256 // as the kernel does it
		}
		if err := netlink.RouteReplace(r); err != nil {
			return drift, fmt.Errorf("adding the route to %s by %s: %w", net, k.Attrs().Name, err)
		}
		drift = append(drift, dataplane.Drift{What: fmt.Sprintf("route %s by %s", net, k.Attrs().Name), Was: "removed"})
	}
	return drift, nil
}

// linkSysctls are our own interface's: they go away with it.
func (p *Plane) linkSysctls() ([]dataplane.Drift, error) {
	type kv struct{ key, value string }
	n := p.c.Interface
	list := []kv{
		{"net/ipv4/conf/" + n + "/forwarding", "1"},
		// Lets the reverse lookup of rp_filter see the filter's mark (else it meets
		// our own prohibitions and drops what was permitted).
		{"net/ipv4/conf/" + n + "/src_valid_mark", "1"},
		{"net/ipv4/conf/" + n + "/accept_redirects", "0"},
		{"net/ipv4/conf/" + n + "/send_redirects", "0"},
	}
	if p.ipv6 {
		list = append(list,
			kv{"net/ipv6/conf/" + n + "/disable_ipv6", "0"},
			kv{"net/ipv6/conf/" + n + "/addr_gen_mode", "1"}, // no link-local address: there is no link
			kv{"net/ipv6/conf/" + n + "/accept_ra", "0"},
			kv{"net/ipv6/conf/" + n + "/accept_redirects", "0"})
		if p.forceForwarding() {
			list = append(list, kv{"net/ipv6/conf/" + n + "/force_forwarding", "1"})
		}
	}
	var drift []dataplane.Drift
	for _, s := range list {
		changed, err := p.sys.put(s.key, s.value)
		if err != nil {
			return drift, err
		}
		if changed {
			drift = append(drift, dataplane.Drift{What: "sysctl " + dotted(s.key), Was: "changed"})
		}
	}
	return drift, nil
}
