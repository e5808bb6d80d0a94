package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strings"
	"syscall"

	"vpnd/internal/logs"
	"vpnd/internal/words"
)

// refusal is an error that its caller is told of: a code, which becomes words in the
// caller's language.
type refusal struct {
	status int
	code   string
}

func (r *refusal) Error() string { return r.code }

// Those that more than one place gives.
var (
	noSession = &refusal{http.StatusUnauthorized, "session_required"}
	noVpnd    = &refusal{http.StatusServiceUnavailable, "unavailable"}
	stranger  = &refusal{http.StatusForbidden, "stranger"}
	otherSite = &refusal{http.StatusForbidden, "wrong_origin"}
)

// refusals gives what a drop refuses its answer.
var refusals = []struct {
	err error
	refusal
}{
	{errNoFile, refusal{http.StatusNotFound, "not_found"}},
	{errNotYours, refusal{http.StatusForbidden, "not_yours"}},
	{errTooLarge, refusal{http.StatusRequestEntityTooLarge, "too_large"}},
	{errFull, refusal{http.StatusInsufficientStorage, "full"}},
	{syscall.ENOSPC, refusal{http.StatusInsufficientStorage, "disk_full"}},
	{syscall.EDQUOT, refusal{http.StatusInsufficientStorage, "disk_full"}},
	{errBadName, refusal{http.StatusBadRequest, "bad_name"}},
	{io.ErrUnexpectedEOF, refusal{http.StatusBadRequest, "broken_off"}},
	{os.ErrDeadlineExceeded, refusal{http.StatusBadRequest, "broken_off"}},
}

func (h *handler) refusalOf(r *http.Request, err error) *refusal {
	if ref, ok := errors.AsType[*refusal](err); ok {
		return ref
	}
	for i := range refusals {
		if errors.Is(err, refusals[i].err) {
			return &refusals[i].refusal
		}
	}
	if r.Context().Err() != nil {
		return &refusal{http.StatusBadRequest, "broken_off"}
	}
	return &refusal{http.StatusInternalServerError, "internal"}
}

// logRefusal names the method and which of our addresses it was, nothing that the client wrote.
// What is the caller's own fault is of interest to who looks for something.
func (h *handler) logRefusal(r *http.Request, ref *refusal, err error) {
	level := slog.LevelDebug
	switch {
	case ref.status == http.StatusInternalServerError:
		level = slog.LevelWarn
	case ref.code == "disk_full":
		level, err = slog.LevelWarn, fmt.Errorf("%w: make room on the disk of --data", err)
	}
	h.log.Log(r.Context(), level, "refused a request", "what", logs.Request(r), "source", r.RemoteAddr, "status", ref.status, "why", err)
}

func (h *handler) refuse(w http.ResponseWriter, r *http.Request, err error) {
	ref := h.refusalOf(r, err)
	h.logRefusal(r, ref, err)
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
	message := words.Choose(r).Text("app_refusal."+ref.code, "size", h.maxFile)
	reply(w, ref.status, map[string]any{"error": map[string]string{"code": ref.code, "message": message}})
}

func reply(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(v) // a reader who has gone is no error of ours
}
