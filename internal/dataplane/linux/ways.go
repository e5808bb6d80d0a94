package linux

import (
	"net/netip"
	"slices"
)

// Collision finds the first route or address of the host's that one of the tunnel's
// prefixes overlaps, apart from those by our own interface.
func Collision(network []netip.Prefix, ours string) (of netip.Prefix, with string, ok bool, err error) {
	routes, err := readRoutes()
	if err != nil {
		return netip.Prefix{}, "", false, err
	}
	of, r, ok := collision(network, routes, ours)
	if !ok {
		return of, "", false, nil
	}
	return of, r.String(), true, nil
}

// Outputs are the interfaces by which IPv4 networks are reached.
func Outputs(targets []netip.Prefix, ours string) ([]string, error) {
	routes, err := readRoutes()
	if err != nil {
		return nil, err
	}
	return findOutputs(targets, routes, ours).v4, nil
}

// Defaults are the interfaces that have an IPv4 default route.
func Defaults(ours string) (out []string, err error) {
	routes, err := readRoutes()
	if err != nil {
		return nil, err
	}
	for _, r := range routes {
		if r.local || !r.dst.Addr().Is4() || r.dst.Bits() != 0 {
			continue
		}
		for _, i := range r.ifaces {
			if i != ours && i != "lo" && !slices.Contains(out, i) {
				out = append(out, i)
			}
		}
	}
	return out, nil
}
