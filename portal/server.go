package portal

import (
	"log/slog"
	"net/http"
	"strings"
	"time"

	"vpnd/internal/logs"
)

// NewServer returns a server for either side with limits that suit it: what a slow or
// hostile client can hold open is bounded, and a sign-in that waits for the plane fits.
func NewServer(h http.Handler, log *slog.Logger) *http.Server {
	return &http.Server{
		Handler: h,
		// "OPTIONS *" is for the handler to refuse, as all that is no page of ours.
		DisableGeneralOptionsHandler: true,
		ReadHeaderTimeout:            5 * time.Second,
		ReadTimeout:                  15 * time.Second,
		WriteTimeout:                 45 * time.Second,
		IdleTimeout:                  60 * time.Second,
		MaxHeaderBytes:               16 << 10,
		ErrorLog:                     logs.HTTPErrors(log),
	}
}

// ToHTTPS leads whoever came without TLS to the same path of the portal's URL, whatever host he
// asked for.
func ToHTTPS(url func() string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		to := url()
		if to == "" || !strings.HasPrefix(r.URL.Path, "/") || r.Method != http.MethodGet && r.Method != http.MethodHead {
			w.Header().Set("Connection", "close")
			w.WriteHeader(http.StatusNotFound)
			return
		}
		w.Header().Set("Connection", "close")
		w.Header().Set("Cache-Control", "no-store")
		w.Header().Set("Location", to+r.URL.EscapedPath())
		w.WriteHeader(http.StatusTemporaryRedirect)
	})
}
