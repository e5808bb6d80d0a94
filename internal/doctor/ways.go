package doctor

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"vpnd/internal/dataplane/line"
	"vpnd/internal/dataplane/linux"
)

// homes are the networks that routers for homes come with: 192.168.0.0 to .2 (most),
// .8 (Huawei), .178 (AVM), 10.0.0.0 (Apple, Comcast).
var homes = prefixes("192.168.0.0/24", "192.168.1.0/24", "192.168.2.0/24", "192.168.8.0/24",
	"192.168.178.0/24", "10.0.0.0/24")

func prefixes(texts ...string) (out []netip.Prefix) {
	for _, t := range texts {
		out = append(out, netip.MustParsePrefix(t))
	}
	return out
}

// ways looks at routes, forwarding, rp_filter and MTU.
func (g *Gateway) ways(context.Context) (out []*Finding) {
	out = append(out, Homes(g.Settings.Network, g.Settings.Routes)...)
	ours := g.Interface
	if n, other, taken, err := linux.Collision(g.Settings.Network, ours); err != nil {
		out = append(out, find("routes_unseen", "why", err))
	} else if taken {
		out = append(out, find("network_taken", "network", n, "other", other))
	} else {
		out = append(out, find("network_ok", "network", list(g.Settings.Network)))
	}
	way, err := line.Read(ours)
	if err != nil {
		out = append(out, find("mtu_unseen", "why", err))
	} else {
		out = append(out, MTU(way, int(g.Settings.MTU), slices.ContainsFunc(g.Settings.Network, func(p netip.Prefix) bool { return p.Addr().Is6() })))
	}
	if g.Plane.Plane != "linux" {
		return out // netstack dials: nothing is forwarded
	}
	var behind []netip.Prefix
	for _, r := range g.Settings.Routes {
		if r.Addr().Is4() {
			behind = append(behind, r)
		}
	}
	outs, err := linux.Outputs(behind, ours)
	if err != nil {
		return append(out, find("routes_unseen", "why", err))
	}
	out = append(out, Forwarding("/proc/sys", ours, outs)...)
	defaults, err := linux.Defaults(ours)
	if err != nil {
		return append(out, find("routes_unseen", "why", err))
	}
	return append(out, ReversePath("/proc/sys", outs, defaults)...)
}

// Homes says what many homes use, too.
func Homes(network, routes []netip.Prefix) (out []*Finding) {
	for _, h := range homes {
		for _, n := range network {
			if n.Overlaps(h) {
				out = append(out, find("network_home", "network", n, "home", h))
			}
		}
		for _, r := range routes {
			if r.Bits() > 8 && r.Overlaps(h) { // who routes a whole 10.0.0.0/8 means it
				out = append(out, find("route_home", "route", r, "home", h))
			}
		}
	}
	return out
}

// MTU holds the tunnel's against the way out. set is 0 where vpnd follows the line.
func MTU(way line.Line, set int, v6 bool) *Finding {
	most := way.Tunnel(v6)
	if set > most {
		return find("mtu_large", "mtu", set, "line", orSomething(way.Name), "most", most)
	}
	if set == 0 {
		set = most
	}
	return find("mtu_ok", "mtu", set)
}

func orSomething(s string) string {
	if s == "" {
		return "an interface"
	}
	return s
}

// Forwarding looks at the sysctls of the tunnel and of what leads to the networks behind.
func Forwarding(root, tunnel string, outs []string) (out []*Finding) {
	for _, i := range append([]string{tunnel}, outs...) {
		if read(root, i, "forwarding") == "0" {
			out = append(out, find("forwarding_off", "name", i, "key", key(i, "forwarding")))
		}
	}
	if out == nil {
		out = append(out, find("forwarding_ok", "interface", tunnel))
	}
	return out
}

// ReversePath looks at rp_filter. 1 drops what comes in by another interface than an answer
// would take; the tunnel's marked packets need src_valid_mark then (ip-sysctl.rst).
func ReversePath(root string, outs, defaults []string) (out []*Finding) {
	strict := func(i string) bool {
		return max(read(root, i, "rp_filter"), read(root, "all", "rp_filter")) == "1"
	}
	for _, i := range outs {
		if strict(i) && read(root, i, "src_valid_mark") == "0" && read(root, "all", "src_valid_mark") == "0" {
			out = append(out, find("rp_filter_drops", "name", i, "key", key(i, "src_valid_mark")))
		}
	}
	if len(defaults) > 1 {
		for _, i := range defaults {
			if strict(i) {
				out = append(out, find("rp_filter_strict", "names", strings.Join(defaults, ", "), "name", i, "key", key(i, "rp_filter")))
			}
		}
	}
	if out == nil {
		out = append(out, find("rp_filter_ok"))
	}
	return out
}

func read(root, iface, name string) string {
	b, err := os.ReadFile(filepath.Join(root, "net/ipv4/conf", iface, name))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}

// key is a sysctl as sysctl(8) takes it: a dot in an interface's name becomes a slash.
func key(iface, name string) string {
	return fmt.Sprintf("net.ipv4.conf.%s.%s", strings.ReplaceAll(iface, ".", "/"), name)
}
