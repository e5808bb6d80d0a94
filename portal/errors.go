package portal

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net/http"
	"strconv"
	"time"

	"vpnd/internal/control"
	"vpnd/internal/logs"
	"vpnd/internal/words"
)

// problem is an error with an HTTP status. Its code and parameters become words when it is
// answered, in the language of whoever asked; the cause is for the log.
type problem struct {
	Status     int
	Code       string // of the sentence
	Kind       string // what the answer calls it; "": as Code
	Params     map[string]string
	RetryAfter time.Duration
	cause      error
}

func (p *problem) Error() string {
	if p.cause != nil {
		return fmt.Sprintf("%s: %v", p.Code, p.cause)
	}
	return p.Code
}

func (p *problem) Unwrap() error { return p.cause }

// statusOf gives each kind of refusal its HTTP status, which is part of the API.
var statusOf = map[string]int{
	control.KindNotFound:          http.StatusNotFound,
	control.KindExists:            http.StatusConflict,
	control.KindInvalid:           http.StatusBadRequest,
	control.KindDisabled:          http.StatusConflict,
	control.KindLocked:            http.StatusTooManyRequests,
	control.KindCodeInvalid:       http.StatusUnauthorized,
	control.KindCodeUsed:          http.StatusUnauthorized,
	control.KindNotEnrolled:       http.StatusConflict,
	control.KindInvitationUnknown: http.StatusNotFound,
	control.KindInvitationExpired: http.StatusGone,
	control.KindInvitationUsed:    http.StatusGone,
	control.KindOtherBrowser:      http.StatusConflict,
	control.KindKeyTaken:          http.StatusConflict,
	control.KindFull:              http.StatusTooManyRequests,
	control.KindConflict:          http.StatusConflict,
	control.KindTooOld:            http.StatusConflict,
	control.KindLimit:             http.StatusTooManyRequests,
	control.KindTooLarge:          http.StatusBadRequest,
	control.KindClockBehind:       http.StatusConflict,
	control.KindNoLeader:          http.StatusServiceUnavailable,
	control.KindUnavailable:       http.StatusServiceUnavailable,
	control.KindCanceled:          http.StatusServiceUnavailable,
	control.KindDeadline:          http.StatusServiceUnavailable,
	control.KindDenied:            http.StatusForbidden,
	control.KindInternal:          http.StatusInternalServerError,
	control.KindExpired:           http.StatusConflict,
	control.KindUsed:              http.StatusConflict,
	control.KindPinned:            http.StatusConflict,
}

// problemOf says how an error is answered. What is neither ours nor control's is
// answered as "internal", and only the log learns what it was.
func problemOf(err error) *problem {
	if p, ok := errors.AsType[*problem](err); ok {
		return p
	}
	if e, ok := errors.AsType[*control.Error](err); ok {
		status, ok := statusOf[e.Kind()]
		if !ok {
			status = http.StatusInternalServerError
		}
		return &problem{Status: status, Code: e.Code, Kind: e.Kind(), Params: e.Values(), RetryAfter: e.RetryAfter, cause: e.Err}
	}
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
		return &problem{Status: http.StatusServiceUnavailable, Code: "timeout", cause: err}
	}
	return &problem{Status: http.StatusInternalServerError, Code: "internal", cause: err}
}

// say is the problem in words.
func (p *problem) say(l *words.Language) string {
	return l.Refusal(p.Code, p.Params)
}

// handlers turns functions that return errors into http.Handlers: the client gets the
// message, the log the cause.
type handlers struct {
	to *slog.Logger
	// who names whom the request comes from, as fields of the log; nil: nobody knows.
	who func(r *http.Request) []any
}

type handlerFunc func(w http.ResponseWriter, r *http.Request) error

// api answers errors as JSON.
func (h handlers) api(f handlerFunc) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := f(w, r); err != nil {
			h.failAPI(w, r, err)
		}
	})
}

// page answers errors as a page.
func (h handlers) page(f handlerFunc) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := f(w, r); err != nil {
			h.failPage(w, r, err)
		}
	})
}

func (h handlers) failAPI(w http.ResponseWriter, r *http.Request, err error) {
	p := h.fail(w, r, err)
	var body struct {
		Error struct {
			Code    string `json:"code"`
			Message string `json:"message"`
		} `json:"error"`
	}
	body.Error.Code, body.Error.Message = cmp.Or(p.Kind, p.Code), p.say(words.Choose(r))
	if err := writeJSON(w, p.Status, body); err != nil {
		h.log(r, p.Status, err)
	}
}

func (h handlers) failPage(w http.ResponseWriter, r *http.Request, err error) {
	p := h.fail(w, r, err)
	view := errorView{Nothing: p.Code == "no_page", Message: p.say(words.Choose(r))}
	if err := writePage(w, r, p.Status, errorPage, "/", view); err != nil {
		h.log(r, p.Status, err)
	}
}

// errorView is what the page of an error shows.
type errorView struct {
	Nothing bool // there is no such page
	Message string
}

func (h handlers) fail(w http.ResponseWriter, r *http.Request, err error) *problem {
	p := problemOf(err)
	if p.RetryAfter > 0 {
		// Rounded up: coming back after it must work.
		w.Header().Set("Retry-After", strconv.FormatInt(int64(math.Ceil(p.RetryAfter.Seconds())), 10))
	}
	h.log(r, p.Status, p)
	return p
}

// log names the method and which of our addresses it was, nothing that the client wrote: a query may
// say where a person wanted to go, a body holds tokens and codes, and so may a mistaken path. What is the caller's own fault is of
// interest to who looks for something; on a public port it is the weather.
func (h handlers) log(r *http.Request, status int, err error) {
	level := slog.LevelDebug
	if status >= 500 {
		level = slog.LevelWarn
	}
	if h.to == nil || !h.to.Enabled(r.Context(), level) {
		return
	}
	fields := []any{"what", logs.Request(r), "source", r.RemoteAddr, "status", status, "why", err}
	if h.who != nil {
		fields = append(fields, h.who(r)...)
	}
	h.to.Log(r.Context(), level, "refused a request", fields...)
}

func noEndpoint(http.ResponseWriter, *http.Request) error {
	return &problem{Status: http.StatusNotFound, Code: "not_found"}
}

// only answers a method that an address does not know; the mux has picked the others.
func only(methods string) handlerFunc {
	return func(w http.ResponseWriter, r *http.Request) error {
		w.Header().Set("Allow", methods)
		return &problem{Status: http.StatusMethodNotAllowed, Code: "method_not_allowed", Params: map[string]string{"method": r.Method}}
	}
}

func noPage(http.ResponseWriter, *http.Request) error {
	return &problem{Status: http.StatusNotFound, Code: "no_page"}
}

func writeJSON(w http.ResponseWriter, status int, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encoding the answer: %w", err)
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, err = w.Write(append(b, '\n'))
	return err
}
