package acltest

import (
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"

	"vpnd/acl/rules"
)

// publish adds resources to a random world, some of which share targets, ports and grants.
// They are drawn from the text, so that the rest of a world is what it was without them.
func (w *World) publish() {
	h := fnv.New64()
	h.Write(w.Text())
	rng := rand.New(rand.NewPCG(h.Sum64(), 9))
	pick := func(list []string) string { return list[rng.IntN(len(list))] }
	w.Resources, w.Options.Services = map[string]Resource{}, map[string][]netip.Addr{}
	ports := []string{"tcp:443", "tcp:80-90", "udp:443", "tcp:*", "udp:1-100", "tcp:22"}
	var names []string
	for i := range rng.IntN(4) {
		name := fmt.Sprintf("r%d", i)
		r := Resource{To: pick([]string{"10.1.2.3", "fd01:2::3", "10.1.2.3", "nas.lan"})}
		for range 1 + rng.IntN(2) {
			r.Ports = append(r.Ports, pick(ports))
		}
		names, w.Resources[name] = append(names, name), r
		w.Options.Services[name] = []netip.Addr{
			netip.MustParseAddr(fmt.Sprintf("10.77.128.%d", i+1)), netip.MustParseAddr(fmt.Sprintf("fd77::8000:0:0:%x", i+1)),
		}
	}
	if len(names) == 0 {
		return
	}
	people := []string{"alice", "Bob", "carol@", "group:g0", "group:g2", "autogroup:member", "*", "tag:x", "autogroup:tagged"}
	for range rng.IntN(4) {
		name := pick(names)
		g := Grant{Src: []string{pick(people), pick(people)}, Dst: []string{name}, MFA: pick([]string{"", "off", "15m"})}
		switch rng.IntN(4) {
		case 0:
			g.Dst = append(g.Dst, pick(names))
		case 1:
			g.IP = []string{pick(w.Resources[name].Ports)}
		case 2:
			g.IP = []string{"*"}
		}
		w.Grants = append(w.Grants, g)
	}
}

// IsService tells whether an address is a resource's inside of the tunnel.
func (w *World) IsService(a netip.Addr) bool { return w.resourceAt(a) != "" }

// resourceAt is the resource with a service address.
func (w *World) resourceAt(a netip.Addr) string {
	for name, addrs := range w.Options.Services {
		if slices.Contains(addrs, a) {
			return name
		}
	}
	return ""
}

// grantsResource tells whether a grant covers a packet to a resource: by its name, or as a
// part of everything, on the resource's ports alone.
func (w *World) grantsResource(g Grant, name string, p rules.Packet, src *rules.Subject) bool {
	has := slices.ContainsFunc(w.Resources[name].Ports, func(s string) bool {
		proto, ports, _ := strings.Cut(s, ":")
		return covers(proto, ports, p)
	})
	if !has || src == nil || !w.fromDevice(g, p.Src, src) {
		return false
	}
	for i, t := range g.Dst {
		if t != name && t != "*" {
			continue
		}
		if g.ACL && covers(g.Proto, g.IP[i], p) || !g.ACL && (len(g.IP) == 0 || coversAny(g.IP, p)) {
			return true
		}
	}
	return false
}

// fromDevice tells whether a grant selects a device as a device, not by its address.
func (w *World) fromDevice(g Grant, a netip.Addr, device *rules.Subject) bool {
	return slices.ContainsFunc(g.Src, func(t string) bool {
		name := strings.TrimPrefix(t, "host:")
		place := strings.ContainsAny(t, "./") || strings.HasPrefix(t, "ipset:") || strings.Contains(t, "::") || name == "app" || w.Hosts[name] != ""
		return !place && (t == "*" || w.matches(t, a, device))
	})
}
