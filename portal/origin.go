package portal

import (
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
)

// hostPort splits a Host header or the rest of an origin, filling in the scheme's port and
// folding the case of ASCII letters. It gives "" for what is no host or has a port that no
// browser writes: each origin has one spelling here.
func hostPort(host, defaultPort string) (name, port string) {
	if strings.ContainsFunc(host, func(r rune) bool { return r <= ' ' || r >= 0x7f }) {
		return "", "" // a browser sends other letters in Punycode
	}
	u, err := url.Parse("//" + host)
	if err != nil || u.Host != host || u.User != nil || strings.HasSuffix(host, ":") {
		return "", ""
	}
	name, port = strings.ToLower(u.Hostname()), u.Port()
	if strings.Contains(name, ":") && host[0] != '[' {
		return "", "" // IPv6 stands in brackets
	}
	if port == "" {
		port = defaultPort
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || strconv.FormatUint(n, 10) != port {
		return "", ""
	}
	return name, port
}

// sameOrigin refuses a request that another origin's page has made. Browsers send Origin
// with every POST and DELETE, and Sec-Fetch-Site from trustworthy origins; programs that
// are no browsers send neither, and cannot be made to send anything by somebody's page.
func sameOrigin(r *http.Request, scheme, defaultPort string) error {
	refused := &problem{Status: http.StatusForbidden, Code: "foreign_origin"}
	switch r.Header.Get("Sec-Fetch-Site") {
	case "", "same-origin", "none":
	default:
		return refused
	}
	origins, ok := r.Header["Origin"]
	if !ok {
		return nil
	}
	if len(origins) != 1 {
		return refused
	}
	s, rest, ok := strings.Cut(origins[0], "://")
	if !ok || s != scheme {
		return refused
	}
	name, port := hostPort(rest, defaultPort)
	wantName, wantPort := hostPort(r.Host, defaultPort) // the caller has checked Host
	if name == "" || name != wantName || port != wantPort {
		return refused
	}
	return nil
}

// source is the address that a request came from. For the tunnel's side it names the device.
func source(r *http.Request) (netip.Addr, error) {
	ap, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return netip.Addr{}, &problem{Status: http.StatusInternalServerError, Code: "no_source", cause: err}
	}
	return ap.Addr().Unmap().WithZone(""), nil
}

// joinHost writes an address and port as a URL's host, without HTTP's own port.
func joinHost(a netip.Addr, port string) string {
	if port != "80" {
		return net.JoinHostPort(a.String(), port)
	}
	if a.Is6() {
		return "[" + a.String() + "]"
	}
	return a.String()
}
