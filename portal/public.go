package portal

import (
	"context"
	"net/http"
	"net/url"
	"strings"
	"time"

	"vpnd/internal/control"
	"vpnd/internal/words"
)

// serviceTimeout bounds what a request asks of control: a sign-in that waits for the
// plane, or for a leader.
const serviceTimeout = 30 * time.Second

// public is the HTTPS side.
type public struct {
	Config
	limit *limiter
}

// guard lets a request through that names this portal, comes from its own pages and not
// too often.
func (p *public) guard(h handlers, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		api := strings.HasPrefix(r.URL.Path, "/api/")
		if err := p.check(r, api); err != nil {
			if api {
				h.failAPI(w, r, err)
			} else {
				h.failPage(w, r, err)
			}
			return
		}
		ctx, cancel := context.WithTimeout(control.Arrived(r.Context(), ""), serviceTimeout)
		defer cancel()
		next.ServeHTTP(w, r.WithContext(ctx))
	})
}

func (p *public) check(r *http.Request, api bool) error {
	own, err := url.Parse(p.URL())
	if err != nil {
		return err
	}
	wantName, wantPort := hostPort(own.Host, "443")
	if name, port := hostPort(r.Host, "443"); name == "" || name != wantName || port != wantPort {
		return &problem{Status: http.StatusMisdirectedRequest, Code: "wrong_host",
			Params: map[string]string{"address": own.Scheme + "://" + own.Host + "/"}}
	}
	if !api {
		return nil
	}
	if err := sameOrigin(r, "https", "443"); err != nil {
		return err
	}
	from, err := source(r)
	if err != nil {
		return err
	}
	if wait := p.limit.take(from); wait > 0 {
		return &problem{Status: http.StatusTooManyRequests, Code: "too_many", RetryAfter: wait}
	}
	return nil
}

func (p *public) home(w http.ResponseWriter, r *http.Request) error {
	if words.Switch(w, r, "/", true) {
		return nil
	}
	return writePage(w, r, http.StatusOK, homePage, "/", nil)
}

func (p *public) enrollPage(w http.ResponseWriter, r *http.Request) error {
	if words.Switch(w, r, "/enroll", true) {
		return nil
	}
	return writePage(w, r, http.StatusOK, enrollPage, "/enroll", nil)
}
