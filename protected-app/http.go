package main

import (
	"context"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"html/template"
	"io"
	"io/fs"
	"mime"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strings"
	"time"
)

//go:embed static
var static embed.FS

// handler serves the drop to callers whom vpnd vouches for.
type handler struct {
	drop    *drop
	who     whois
	maxFile int64 // bytes
	logf    func(string, ...any)
	page    *template.Template
	build   string // changes with the static files, so that they can be cached for ever
}

func newHandler(d *drop, w whois, maxFile int64, logf func(string, ...any)) http.Handler {
	h := &handler{drop: d, who: w, maxFile: maxFile, logf: logf}
	h.page = template.Must(template.ParseFS(static, "static/index.html"))
	sum := sha256.New()
	for _, name := range []string{"app.css", "app.js", "mark.svg"} {
		b, err := static.ReadFile("static/" + name)
		if err != nil {
			panic(err) // it is embedded above
		}
		sum.Write(b)
	}
	h.build = hex.EncodeToString(sum.Sum(nil))[:12]
	files, err := fs.Sub(static, "static")
	if err != nil {
		panic(err)
	}
	assets := http.StripPrefix("/static/"+h.build+"/", http.FileServerFS(files))

	mux := http.NewServeMux()
	mux.Handle("GET /{$}", h.signedIn(h.index))
	mux.Handle("GET /api/whoami", h.signedIn(h.whoami))
	mux.Handle("GET /api/files", h.signedIn(h.list))
	mux.Handle("POST /api/files", h.signedIn(h.upload))
	mux.Handle("GET /api/files/{id}", h.signedIn(h.download))
	mux.Handle("DELETE /api/files/{id}", h.signedIn(h.delete))
	mux.Handle("GET /static/"+h.build+"/", h.signedIn(func(w http.ResponseWriter, r *http.Request, _ caller) error {
		w.Header().Set("Cache-Control", "private, max-age=31536000, immutable")
		assets.ServeHTTP(w, r)
		return nil
	}))
	return mux
}

// refusal is an error whose message is for the caller.
type refusal struct {
	status  int
	code    string
	message string
}

func (r *refusal) Error() string { return r.message }

// Those that more than one place gives.
var (
	noSession = &refusal{http.StatusUnauthorized, "session_required", "Your session has ended. Sign in again, then try once more."}
	noVpnd    = &refusal{http.StatusServiceUnavailable, "unavailable", "The gateway cannot say who you are at the moment. Try again in a few seconds."}
)

// signedIn lets a request through to next only if its source address is that of a
// device with a live session, and for no longer than that session lives.
func (h *handler) signedIn(next func(http.ResponseWriter, *http.Request, caller) error) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		hd := w.Header()
		hd.Set("Content-Security-Policy", "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'")
		hd.Set("X-Content-Type-Options", "nosniff")
		hd.Set("Referrer-Policy", "no-referrer")
		hd.Set("Cross-Origin-Resource-Policy", "same-origin")
		hd.Set("Cross-Origin-Opener-Policy", "same-origin")
		hd.Set("Cache-Control", "no-store")
		if err := h.admit(w, r, next); err != nil {
			h.refuse(w, r, err)
		}
	})
}

func (h *handler) admit(w http.ResponseWriter, r *http.Request, next func(http.ResponseWriter, *http.Request, caller) error) error {
	if err := sameSite(r); err != nil {
		return err
	}
	from, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return &refusal{http.StatusForbidden, "stranger", "This app answers devices of the tunnel only."}
	}
	g := &guard{who: h.who, addr: from.Addr().Unmap(), now: time.Now}
	if err := g.check(r.Context()); err != nil {
		return err
	}
	rc := http.NewResponseController(w)
	if err := errors.Join(rc.SetReadDeadline(g.caller.Expires), rc.SetWriteDeadline(g.caller.Expires)); err != nil {
		return err
	}
	if r.Body != nil {
		r.Body = struct {
			io.Reader
			io.Closer
		}{&guarded{ctx: r.Context(), g: g, r: r.Body, extend: func(t time.Time) error { return rc.SetReadDeadline(t) }}, r.Body}
	}
	return next(w, r.WithContext(context.WithValue(r.Context(), guardKey{}, g)), g.caller)
}

type guardKey struct{}

// sameSite keeps other sites' pages out: Host must be the tunnel's own address (else a
// name that an attacker points here would do), and what changes something must come from a
// page of ours.
func sameSite(r *http.Request) error {
	local, ok := r.Context().Value(http.LocalAddrContextKey).(net.Addr)
	if !ok || !sameHost(r.Host, local.String()) {
		return &refusal{http.StatusMisdirectedRequest, "wrong_host", "Open this app by the gateway's tunnel address."}
	}
	if r.Method == http.MethodGet || r.Method == http.MethodHead {
		return nil
	}
	if origin := r.Header.Get("Origin"); origin != "" && origin != "http://"+r.Host {
		return &refusal{http.StatusForbidden, "wrong_origin", "This request came from another site's page."}
	}
	if site := r.Header.Get("Sec-Fetch-Site"); site != "" && site != "same-origin" {
		return &refusal{http.StatusForbidden, "wrong_origin", "This request came from another site's page."}
	}
	return nil
}

func sameHost(host, local string) bool {
	want, err := netip.ParseAddrPort(local)
	if err != nil {
		return false
	}
	want = netip.AddrPortFrom(want.Addr().Unmap().WithZone(""), want.Port())
	got, err := netip.ParseAddrPort(host)
	if err != nil { // without a port, port 80 is meant
		a, aerr := netip.ParseAddr(strings.Trim(host, "[]"))
		if aerr != nil {
			return false
		}
		got = netip.AddrPortFrom(a, 80)
	}
	return got == want
}

func (h *handler) refuse(w http.ResponseWriter, r *http.Request, err error) {
	var ref *refusal
	switch {
	case errors.As(err, &ref):
	case errors.Is(err, errNoFile):
		ref = &refusal{http.StatusNotFound, "not_found", sentence(err)}
	case errors.Is(err, errNotYours):
		ref = &refusal{http.StatusForbidden, "not_yours", sentence(err)}
	case errors.Is(err, errTooLarge):
		ref = &refusal{http.StatusRequestEntityTooLarge, "too_large", sentence(err) + " At most " + size(h.maxFile) + " fit."}
	case errors.Is(err, errFull):
		ref = &refusal{http.StatusInsufficientStorage, "full", sentence(err)}
	case errors.Is(err, errBadName):
		ref = &refusal{http.StatusBadRequest, "bad_name", sentence(err)}
	case errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, os.ErrDeadlineExceeded), r.Context().Err() != nil:
		ref = &refusal{http.StatusBadRequest, "broken_off", "The upload broke off; nothing was kept."}
	default:
		h.logf("%s %s: %v", r.Method, r.URL.Path, err)
		ref = &refusal{http.StatusInternalServerError, "internal", "Something went wrong here; it has been logged."}
	}
	// A person who opens the app without a session is taken to where she gets one.
	if ref == noSession && r.Method == http.MethodGet && strings.Contains(r.Header.Get("Accept"), "text/html") {
		if host, _, err := net.SplitHostPort(r.Host); err == nil {
			if strings.Contains(host, ":") {
				host = "[" + host + "]"
			}
			w.Header().Set("Connection", "close")
			http.Redirect(w, r, "http://"+host+"/", http.StatusSeeOther)
			return
		}
	}
	if ref.status == http.StatusServiceUnavailable {
		w.Header().Set("Retry-After", "3")
	}
	w.Header().Set("Connection", "close") // the body may not have been read
	reply(w, ref.status, map[string]any{"error": map[string]string{"code": ref.code, "message": ref.message}})
}

func sentence(err error) string {
	s := err.Error()
	return strings.ToUpper(s[:1]) + s[1:] + "."
}

func reply(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(v) // a reader who has gone is no error of ours
}

func (h *handler) index(w http.ResponseWriter, _ *http.Request, c caller) error {
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	return h.page.Execute(w, map[string]any{
		"Build": h.build, "User": c.User, "Device": c.Device,
		"Expires": c.Expires.UTC().Format(time.RFC3339Nano), "Now": time.Now().UTC().Format(time.RFC3339Nano), "Max": h.maxFile, "MaxText": size(h.maxFile),
	})
}

func (h *handler) whoami(w http.ResponseWriter, _ *http.Request, c caller) error {
	reply(w, http.StatusOK, map[string]any{
		"user": c.User, "device": c.Device, "address": c.Address.String(),
		"session": map[string]any{"expires_at": c.Expires.UTC()},
	})
	return nil
}

// entry is a file as one caller sees it.
type entry struct {
	meta
	Mine bool `json:"mine"`
}

func (h *handler) list(w http.ResponseWriter, _ *http.Request, c caller) error {
	out := []entry{}
	for _, m := range h.drop.list() {
		out = append(out, entry{m, m.By == c.User})
	}
	reply(w, http.StatusOK, map[string]any{"files": out})
	return nil
}

func (h *handler) upload(w http.ResponseWriter, r *http.Request, c caller) error {
	m, err := h.drop.put(r.URL.Query().Get("name"), c.User, r.ContentLength, r.Body, time.Now())
	if err != nil {
		return err
	}
	reply(w, http.StatusCreated, entry{m, true})
	return nil
}

func (h *handler) download(w http.ResponseWriter, r *http.Request, _ caller) error {
	m, f, err := h.drop.open(r.PathValue("id"))
	if err != nil {
		return err
	}
	defer f.Close()
	w.Header().Set("Content-Disposition", mime.FormatMediaType("attachment", map[string]string{"filename": m.Name}))
	w.Header().Set("Content-Type", "application/octet-stream")
	g, _ := r.Context().Value(guardKey{}).(*guard)
	http.ServeContent(w, r, "", m.At, struct {
		io.Reader
		io.Seeker
	}{&guarded{ctx: r.Context(), g: g, r: f}, f})
	return nil
}

func (h *handler) delete(w http.ResponseWriter, r *http.Request, c caller) error {
	if err := h.drop.remove(r.PathValue("id"), c.User); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// size is a number of bytes for people.
func size(n int64) string {
	units := []string{"B", "KiB", "MiB", "GiB", "TiB"}
	f, i := float64(n), 0
	for f >= 1024 && i < len(units)-1 {
		f, i = f/1024, i+1
	}
	if f == float64(int64(f)) {
		return fmt.Sprintf("%d %s", int64(f), units[i])
	}
	return fmt.Sprintf("%.1f %s", f, units[i])
}
