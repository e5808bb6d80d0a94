package doctor

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

func (g *Gateway) endpoint(ctx context.Context) []*Finding {
	own, _ := ownAddrs(g.Interface) // none: then nothing is told to be elsewhere
	return Endpoint(ctx, g.Settings.Endpoint, g.Given, g.WireGuard.Port(), own, net.DefaultResolver.LookupNetIP)
}

// Endpoint looks at what clients dial. given: an administrator's flag says so. own are this
// host's addresses.
func Endpoint(ctx context.Context, endpoint string, given bool, listen uint16, own []netip.Addr,
	lookup func(ctx context.Context, network, host string) ([]netip.Addr, error)) (out []*Finding) {
	host, port, err := net.SplitHostPort(endpoint)
	if err != nil || host == "" {
		return []*Finding{find("endpoint_none")}
	}
	if port != strconv.Itoa(int(listen)) {
		out = append(out, find("endpoint_port", "dialled", port, "listen", listen, "host", host))
	}
	var addrs []netip.Addr
	if a, err := netip.ParseAddr(host); err == nil {
		addrs = []netip.Addr{a.Unmap()}
	} else {
		found, err := lookup(ctx, "ip", host)
		var dns *net.DNSError
		switch {
		case errors.As(err, &dns) && !dns.IsNotFound:
			return append(out, find("endpoint_unnamed", "host", host, "why", "the name server does not answer: "+dns.Err))
		case err != nil:
			return append(out, find("endpoint_unnamed", "host", host, "why", err))
		}
		for _, a := range found {
			addrs = append(addrs, a.Unmap())
		}
	}
	here := slices.ContainsFunc(addrs, func(a netip.Addr) bool { return slices.Contains(own, a) })
	public := slices.DeleteFunc(slices.Clone(own), func(a netip.Addr) bool { return !foreign(a) })
	switch {
	case !slices.ContainsFunc(addrs, foreign): // all are private
		if here && !given && len(addrs) == 1 && addrs[0].String() == host {
			return append(out, find("endpoint_private", "endpoint", endpoint))
		}
		return append(out, find("endpoint_local", "endpoint", endpoint))
	case here:
		return append(out, find("endpoint_ok", "endpoint", endpoint))
	case len(public) > 0:
		return append(out, find("endpoint_other", "endpoint", endpoint, "addrs", list(addrs), "own", list(public)))
	}
	return append(out, find("endpoint_nat", "endpoint", endpoint, "port", port))
}

// notOutside are networks that nobody has on the Internet, beside netip's private ones: those of
// providers' NAT (RFC 6598), benchmarks (RFC 2544).
var notOutside = []netip.Prefix{
	netip.MustParsePrefix("100.64.0.0/10"), netip.MustParsePrefix("198.18.0.0/15"),
}

// foreign says whether an address may be one of the Internet's.
func foreign(a netip.Addr) bool {
	return a.IsGlobalUnicast() && !a.IsPrivate() &&
		!slices.ContainsFunc(notOutside, func(p netip.Prefix) bool { return p.Contains(a) })
}

// ownAddrs are this host's addresses, but the tunnel's.
func ownAddrs(tunnel string) (out []netip.Addr, err error) {
	ifaces, err := net.Interfaces()
	if err != nil {
		return nil, err
	}
	for _, i := range ifaces {
		if i.Name == tunnel {
			continue
		}
		addrs, err := i.Addrs()
		if err != nil {
			continue // gone meanwhile
		}
		for _, a := range addrs {
			if p, err := netip.ParsePrefix(a.String()); err == nil {
				out = append(out, p.Addr().Unmap())
			}
		}
	}
	return out, nil
}

func hostOfURL(s string) string {
	u, err := url.Parse(s)
	if err != nil {
		return ""
	}
	return u.Hostname()
}

func list[T interface{ String() string }](all []T) string {
	var s []string
	for _, a := range all {
		s = append(s, a.String())
	}
	return strings.Join(s, ", ")
}
