package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"errors"
	"html/template"
	"io"
	"io/fs"
	"log/slog"
	"mime"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"time"

	"vpnd/internal/words"
)

//go:embed static
var static embed.FS

// handler serves the drop to callers whom vpnd vouches for.
type handler struct {
	drop    *drop
	who     whois
	maxFile int64 // bytes
	log     *slog.Logger
	pages   map[string]*template.Template // by the language's code
	build   string                        // changes with the static files, so that they can be cached for ever
}

func newHandler(d *drop, w whois, maxFile int64, logger *slog.Logger) http.Handler {
	h := &handler{drop: d, who: w, maxFile: maxFile, log: logger}
	h.pages = map[string]*template.Template{}
	for _, l := range words.All() {
		h.pages[l.Code] = template.Must(template.New("index.html").Funcs(template.FuncMap{"say": l.HTML}).ParseFS(static, "static/index.html"))
	}
	sum := sha256.New()
	sum.Write(words.Script)
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
	mux.Handle("/", h.signedIn(elsewhere))
	mux.Handle("GET /api/whoami", h.signedIn(h.whoami))
	mux.Handle("GET /api/files", h.signedIn(h.list))
	mux.Handle("POST /api/files", h.signedIn(h.upload))
	mux.Handle("GET /api/files/{id}", h.signedIn(h.download))
	mux.Handle("DELETE /api/files/{id}", h.signedIn(h.delete))
	mux.Handle("GET /static/"+h.build+"/words.js", h.signedIn(func(w http.ResponseWriter, r *http.Request, _ caller) error {
		w.Header().Set("Cache-Control", "private, max-age=31536000, immutable")
		http.ServeContent(w, r, "words.js", time.Time{}, bytes.NewReader(words.Script))
		return nil
	}))
	mux.Handle("GET /static/"+h.build+"/", h.signedIn(func(w http.ResponseWriter, r *http.Request, _ caller) error {
		w.Header().Set("Cache-Control", "private, max-age=31536000, immutable")
		assets.ServeHTTP(w, r)
		return nil
	}))
	return mux
}

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
		return stranger
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
		return &refusal{http.StatusMisdirectedRequest, "wrong_host"}
	}
	if r.Method == http.MethodGet || r.Method == http.MethodHead {
		return nil
	}
	if origin := r.Header.Get("Origin"); origin != "" && origin != "http://"+r.Host {
		return otherSite
	}
	if site := r.Header.Get("Sec-Fetch-Site"); site != "" && site != "same-origin" {
		return otherSite
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
		inner, bracketed := strings.CutPrefix(host, "[")
		inner, ended := strings.CutSuffix(inner, "]")
		a, err := netip.ParseAddr(inner)
		if err != nil || bracketed != ended || bracketed != a.Is6() {
			return false
		}
		got = netip.AddrPortFrom(a, 80)
	}
	return got == want
}

// indexView is what index.html shows.
type indexView struct {
	*words.Language
	Others       []words.Other
	Words        words.Scripted
	Build        string
	User, Device string
	Expires, Now string // RFC 3339
	Max          int64  // bytes
}

func (h *handler) index(w http.ResponseWriter, r *http.Request, c caller) error {
	if words.Switch(w, r, "/", false) {
		return nil
	}
	l := words.Choose(r)
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("Content-Language", l.Code)
	return h.pages[l.Code].Execute(w, indexView{
		Language: l, Others: l.Others("/", nil), Words: l.ForScripts("drop", "size"), Build: h.build, User: c.User, Device: c.Device,
		Expires: c.Expires.UTC().Format(time.RFC3339Nano), Now: time.Now().UTC().Format(time.RFC3339Nano), Max: h.maxFile,
	})
}

// elsewhere leads a person who mistyped an address home; a program is told that there is nothing.
func elsewhere(w http.ResponseWriter, r *http.Request, _ caller) error {
	if r.Method != http.MethodGet || !strings.Contains(r.Header.Get("Accept"), "text/html") {
		return &refusal{http.StatusNotFound, "no_page"}
	}
	http.Redirect(w, r, "/", http.StatusSeeOther)
	return nil
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
		// A browser reads no answer before it has sent all, and a connection that is closed while
		// it sends is a broken one to it. What is too large is not waited for.
		if !errors.Is(err, errTooLarge) {
			_, _ = io.CopyN(io.Discard, r.Body, h.maxFile) // an error is that the caller has gone
		}
		return err
	}
	h.log.Info("put a file", "what", "file.put", "user", c.User, "device", c.Device, "source", r.RemoteAddr, "file", m.ID, "size", m.Size)
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
	h.log.Info("removed a file", "what", "file.remove", "user", c.User, "device", c.Device, "source", r.RemoteAddr, "file", r.PathValue("id"))
	w.WriteHeader(http.StatusNoContent)
	return nil
}
