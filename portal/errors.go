package portal

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"html/template"
	"math"
	"net/http"
	"strconv"
	"time"

	"vpnd/internal/control"
)

// problem is an error with an HTTP status: Message is for the person, cause for the log.
type problem struct {
	Status     int
	Code       string
	Message    string
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

// statusOf gives each code of a refusal its HTTP status, which is part of the API.
var statusOf = map[string]int{
	control.CodeNotFound:          http.StatusNotFound,
	control.CodeExists:            http.StatusConflict,
	control.CodeInvalid:           http.StatusBadRequest,
	control.CodeDisabled:          http.StatusConflict,
	control.CodeLocked:            http.StatusTooManyRequests,
	control.CodeCodeInvalid:       http.StatusUnauthorized,
	control.CodeCodeUsed:          http.StatusUnauthorized,
	control.CodeNotEnrolled:       http.StatusConflict,
	control.CodeInvitationUnknown: http.StatusNotFound,
	control.CodeInvitationExpired: http.StatusGone,
	control.CodeInvitationUsed:    http.StatusGone,
	control.CodeOtherBrowser:      http.StatusConflict,
	control.CodeKeyTaken:          http.StatusConflict,
	control.CodeFull:              http.StatusTooManyRequests,
	control.CodeConflict:          http.StatusConflict,
	control.CodeTooOld:            http.StatusConflict,
	control.CodeLimit:             http.StatusTooManyRequests,
	control.CodeTooLarge:          http.StatusBadRequest,
	control.CodeClockBehind:       http.StatusConflict,
	control.CodeNoLeader:          http.StatusServiceUnavailable,
	control.CodeUnavailable:       http.StatusServiceUnavailable,
	control.CodeCanceled:          http.StatusServiceUnavailable,
	control.CodeDenied:            http.StatusForbidden,
	control.CodeInternal:          http.StatusInternalServerError,
	control.CodeExpired:           http.StatusConflict,
	control.CodeUsed:              http.StatusConflict,
	control.CodePinned:            http.StatusConflict,
}

// problemOf says how an error is answered. What is neither ours nor control's is
// answered as "internal", and only the log learns what it was.
func problemOf(err error) *problem {
	if p, ok := errors.AsType[*problem](err); ok {
		return p
	}
	if e, ok := errors.AsType[*control.Error](err); ok {
		status, ok := statusOf[e.Code]
		if !ok {
			status = http.StatusInternalServerError
		}
		return &problem{Status: status, Code: e.Code, Message: e.Message, RetryAfter: e.RetryAfter, cause: e.Err}
	}
	p := &problem{
		Status: http.StatusInternalServerError, Code: "internal", cause: err,
		Message: "The gateway could not do this. Try again in a moment; if it stays so, tell its administrator.",
	}
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
		p.Status, p.Code = http.StatusServiceUnavailable, "unavailable"
		p.Message = "The gateway took too long to answer. Try again in a moment."
	}
	return p
}

// handlers turns functions that return errors into http.Handlers: the client gets the
// message, the log the cause.
type handlers struct {
	logf func(format string, args ...any)
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
	body.Error.Code, body.Error.Message = p.Code, p.Message
	if err := writeJSON(w, p.Status, body); err != nil {
		h.log(r, p.Status, err)
	}
}

func (h handlers) failPage(w http.ResponseWriter, r *http.Request, err error) {
	p := h.fail(w, r, err)
	if err := writePage(w, p.Status, errorPage, p); err != nil {
		h.log(r, p.Status, err)
	}
}

func (h handlers) fail(w http.ResponseWriter, r *http.Request, err error) *problem {
	p := problemOf(err)
	if p.RetryAfter > 0 {
		// Rounded up: coming back after it must work.
		w.Header().Set("Retry-After", strconv.FormatInt(int64(math.Ceil(p.RetryAfter.Seconds())), 10))
	}
	if p.Status >= 500 {
		h.log(r, p.Status, p)
	}
	return p
}

// log names method and path, never the query or the body: a query may say where a
// person wanted to go, a body holds tokens and codes.
func (h handlers) log(r *http.Request, status int, err error) {
	if h.logf != nil {
		// Escaped: a line end in the path must not make a line of the log.
		h.logf("portal: %s %s from %s: %d: %v", r.Method, r.URL.EscapedPath(), r.RemoteAddr, status, err)
	}
}

func noEndpoint(http.ResponseWriter, *http.Request) error {
	return &problem{Status: http.StatusNotFound, Code: "not_found", Message: "There is no such request here."}
}

// only answers a method that an address does not know; the mux has picked the others.
func only(methods string) handlerFunc {
	return func(w http.ResponseWriter, r *http.Request) error {
		w.Header().Set("Allow", methods)
		return &problem{Status: http.StatusMethodNotAllowed, Code: "method_not_allowed", Message: "This address does not take the method " + r.Method + "."}
	}
}

func noPage(http.ResponseWriter, *http.Request) error {
	return &problem{Status: http.StatusNotFound, Code: "no_page", Message: "There is no page at this address."}
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

// writePage renders into memory first, so that a failing template is not half an answer.
func writePage(w http.ResponseWriter, status int, t *template.Template, data any) error {
	var b bytes.Buffer
	if err := t.Execute(&b, data); err != nil {
		return fmt.Errorf("rendering %s: %w", t.Name(), err)
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.WriteHeader(status)
	_, err := b.WriteTo(w)
	return err
}
