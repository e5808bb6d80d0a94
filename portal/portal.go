// Package portal is the browser edge: enrolment, sign-in, status. It decodes, calls
// control, and encodes.
//
// It has two sides. Public is served over HTTPS to anybody and knows nothing but
// invitations. Tunnel is served over plain HTTP to the tunnel alone, where WireGuard has
// vouched for the source address: that address names the device, and there is no cookie.
// The package holds no state but a bounded table of request rates, makes no decision of
// its own about who may do what, and writes no secret to the log.
package portal

import (
	"context"
	"log/slog"
	"net/http"
	"net/netip"

	"vpnd/internal/control"
)

// Service is what the portal needs of control.Service.
type Service interface {
	EnrolBegin(ctx context.Context, token, browser string) (control.Enrolment, error)
	EnrolFinish(ctx context.Context, r control.FinishRequest) (control.Finished, error)
	EnrolStatus(ctx context.Context, token, publicKey string) (string, error)
	Session(ctx context.Context, from netip.Addr) (control.SessionStatus, error)
	SignIn(ctx context.Context, from netip.Addr, code string) (control.SessionStatus, error)
	SignOut(ctx context.Context, from netip.Addr) error
}

// Config is what both sides need.
type Config struct {
	Service Service
	// URL is of the public side, asked for at each request: Host and Origin must be its.
	URL func() string
	// Tunnel is the gateway's tunnel addresses: the tunnel side's hosts.
	Tunnel  []netip.Addr
	AppPort uint16 // of the protected app on those addresses
	Log     *slog.Logger
}

// Public is the handler of the HTTPS side: GET /enroll and /api/v1/enroll/….
func Public(c Config) http.Handler {
	p := &public{Config: c, limit: newLimiter(publicRate, publicBurst, publicSources)}
	h := handlers{to: c.Log}
	mux := http.NewServeMux()
	mux.Handle("GET /{$}", h.page(p.home))
	mux.Handle("GET /enroll", h.page(p.enrollPage))
	mux.Handle("POST /api/v1/enroll/begin", h.api(p.begin))
	mux.Handle("POST /api/v1/enroll/finish", h.api(p.finish))
	mux.Handle("POST /api/v1/enroll/status", h.api(p.status))
	for _, path := range []string{"begin", "finish", "status"} {
		mux.Handle("/api/v1/enroll/"+path, h.api(only("POST")))
	}
	common(mux, h)
	mux.Handle("/enroll", h.page(only("GET")))
	return publicHeaders(p.guard(h, mux))
}

// Tunnel is the handler of the side that only the tunnel reaches: GET /,
// /api/v1/session, and 303 to the sign-in page for every foreign Host.
func Tunnel(c Config) http.Handler {
	t := &tunnel{Config: c}
	h := handlers{to: c.Log, who: t.who}
	mux := http.NewServeMux()
	mux.Handle("GET /{$}", h.page(t.home))
	mux.Handle("GET /api/v1/session", h.api(t.session))
	mux.Handle("POST /api/v1/session", h.api(t.signIn))
	mux.Handle("DELETE /api/v1/session", h.api(t.signOut))
	mux.Handle("/api/v1/session", h.api(only("GET, POST, DELETE")))
	common(mux, h)
	return tunnelHeaders(t.guard(h, mux))
}

// common is what both sides answer alike.
func common(mux *http.ServeMux, h handlers) {
	mux.Handle("GET "+assets.prefix, assets)
	mux.Handle("/{$}", h.page(only("GET")))
	mux.Handle("/api/", h.api(noEndpoint))
	mux.Handle("/", h.page(noPage))
}
