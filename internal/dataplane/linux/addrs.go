package linux

import (
	"net/netip"
	"slices"
)

// gatewayPrefixes are the gateway's addresses, each with the length of the tunnel's
// prefix that it lies in, so that the kernel makes the route to the network by itself.
func gatewayPrefixes(addrs []netip.Addr, network []netip.Prefix, ipv6 bool) []netip.Prefix {
	var out []netip.Prefix
	for _, a := range addrs {
		if a.Is6() && !ipv6 {
			continue
		}
		bits := a.BitLen()
		for _, n := range network {
			if n.Contains(a) {
				bits = n.Bits()
			}
		}
		out = append(out, netip.PrefixFrom(a, bits))
	}
	return out
}

// diffAddrs compares the addresses of the interface with those that it should have.
// Link-local ones are the kernel's.
func diffAddrs(have, want []netip.Prefix) (add, del []netip.Prefix) {
	for _, h := range have {
		if !slices.Contains(want, h) && !h.Addr().IsLinkLocalUnicast() {
			del = append(del, h)
		}
	}
	for _, w := range want {
		if !slices.Contains(have, w) {
			add = append(add, w)
		}
	}
	return add, del
}
