package portal

import (
	"context"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"vpnd/internal/control"
)

// tunnel is the side that only the tunnel reaches.
type tunnel struct {
	Config
}

// maxNext is the most bytes of an address that is remembered until after sign-in.
const maxNext = 2048

// guard sends every request that does not name this portal to the sign-in page. Such
// requests come because the packet filter leads plain HTTP here, and the app's own port,
// from devices that may not go on.
func (t *tunnel) guard(h handlers, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if host, port, ok := t.own(r.Host); !ok || port != "80" {
			t.redirect(w, r, host, ok)
			return
		}
		if strings.HasPrefix(r.URL.Path, "/api/") {
			if err := sameOrigin(r, "http", "80"); err != nil {
				h.failAPI(w, r, err)
				return
			}
		}
		ctx, cancel := context.WithTimeout(control.Arrived(r.Context(), ""), serviceTimeout)
		defer cancel()
		next.ServeHTTP(w, r.WithContext(ctx))
	})
}

// own reads a Host and says whether it is one of the gateway's tunnel addresses.
func (t *tunnel) own(host string) (a netip.Addr, port string, ok bool) {
	name, port := hostPort(host, "80")
	a, err := netip.ParseAddr(name)
	if err != nil || !slices.Contains(t.Tunnel, a) {
		return netip.Addr{}, port, false
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		return netip.Addr{}, port, false
	}
	return a, port, true
}

// redirect answers 303 to the sign-in page. The connection ends with it: its next
// request may belong to whom the person asked for, once she is signed in.
//
// A browser opens connections ahead of need, so one that the filter has led here before
// the sign-in may bring a request after it. Its address is open now, by another connection.
func (t *tunnel) redirect(w http.ResponseWriter, r *http.Request, host netip.Addr, own bool) {
	to := url.URL{Scheme: "http", Path: "/"}
	if a, ok := t.openNow(r); ok {
		w.Header().Set("Connection", "close")
		w.Header().Set("Location", (&url.URL{Scheme: "http", Host: joinHost(a.Addr(), strconv.Itoa(int(a.Port()))),
			Path: r.URL.Path, RawPath: r.URL.RawPath, RawQuery: r.URL.RawQuery}).String())
		w.WriteHeader(http.StatusSeeOther)
		return
	}
	if own {
		if r.Method == http.MethodGet {
			want := url.URL{Scheme: "http", Host: r.Host, Path: r.URL.Path, RawPath: r.URL.RawPath, RawQuery: r.URL.RawQuery}
			if next := t.next(want.String()); next != "" {
				to.RawQuery = url.Values{"next": {next}}.Encode()
			}
		}
	} else {
		host = t.nearest(r)
	}
	to.Host = joinHost(host, "80")
	w.Header().Set("Connection", "close")
	w.Header().Set("Location", to.String())
	w.WriteHeader(http.StatusSeeOther)
}

// openNow is the address that a GET asks for, if the caller may go there by now. Names are
// not looked up.
func (t *tunnel) openNow(r *http.Request) (a netip.AddrPort, ok bool) {
	if r.Method != http.MethodGet || len(r.RequestURI) > maxNext {
		return a, false
	}
	name, port := hostPort(r.Host, "80")
	addr, err := netip.ParseAddr(name)
	if err != nil || addr.Zone() != "" {
		return a, false
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return a, false
	}
	from, err := source(r)
	if err != nil {
		return a, false
	}
	ctx, cancel := context.WithTimeout(r.Context(), serviceTimeout)
	defer cancel()
	s, err := t.Service.Session(ctx, from)
	a = netip.AddrPortFrom(addr, uint16(n))
	return a, err == nil && s.Active && opensTCP(s.Reaches, a)
}

// nearest is the gateway's address of the caller's family.
func (t *tunnel) nearest(r *http.Request) netip.Addr {
	from, err := source(r)
	for _, a := range t.Tunnel {
		if err == nil && a.Is4() == from.Is4() {
			return a
		}
	}
	return t.Tunnel[0]
}

// next reads an address to go to after sign-in. Only the gateway's own tunnel addresses
// are taken, at any port but the portal's; everything else gives "". What it returns is
// put together anew from the parts that were checked.
func (t *tunnel) next(raw string) string {
	if len(raw) > maxNext {
		return ""
	}
	u, err := url.Parse(raw)
	if err != nil || u.Scheme != "http" || u.User != nil || u.Opaque != "" {
		return ""
	}
	a, port, ok := t.own(u.Host)
	if !ok || port == "80" {
		return ""
	}
	path := u.Path
	if path == "" {
		path = "/"
	}
	clean := url.URL{Scheme: "http", Host: joinHost(a, port), Path: path, RawPath: u.RawPath, RawQuery: u.RawQuery}
	return clean.String()
}

// who names the device that WireGuard vouches for, for the log.
func (t *tunnel) who(r *http.Request) []any {
	ap, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return nil
	}
	s, err := t.Service.Session(r.Context(), ap.Addr())
	if err != nil {
		return nil
	}
	return []any{"user", s.User, "device", s.Device}
}
