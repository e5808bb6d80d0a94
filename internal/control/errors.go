package control

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"vpnd/internal/store"
	"vpnd/peers"
)

// Error is what a use case refuses with: data, of which an edge makes words in the language
// of whoever asked. It holds no secret.
type Error struct {
	Code       string // one of Codes
	Params     []peers.Param
	RetryAfter time.Duration // locked, code_used: when it makes sense to try again
	Err        error         // the cause, for the log
}

// Error gives code and parameters, for logs.
func (e *Error) Error() string { return (&peers.Refusal{Code: e.Code, Params: e.Params}).Error() }

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// Kind is the code's: what a program may branch on. It is KindInternal for a code that only
// a newer gateway knows.
func (e *Error) Kind() string {
	if i := slices.IndexFunc(codes, func(c RefusalCode) bool { return c.Name == e.Code }); i >= 0 && codes[i].Kind != "" {
		return codes[i].Kind
	}
	r := &peers.Refusal{Code: e.Code, Params: e.Params}
	for _, k := range stateKinds {
		if r.Is(k.reason) {
			return k.kind
		}
	}
	return KindInternal
}

// Values are the parameters by name.
func (e *Error) Values() map[string]string {
	m := make(map[string]string, len(e.Params))
	for _, p := range e.Params {
		m[p.Name] = p.Value
	}
	return m
}

// Refuse makes a refusal; its arguments are the code's parameters in their order.
func Refuse(code string, args ...any) *Error {
	e := &Error{Code: code}
	i := slices.IndexFunc(codes, func(c RefusalCode) bool { return c.Name == code })
	for n, name := range codes[i].Params {
		value := fmt.Sprint(args[n])
		if t, ok := args[n].(time.Time); ok {
			value = t.UTC().Format(time.RFC3339Nano)
		}
		e.Params = append(e.Params, peers.Param{Name: name, Value: value})
	}
	return e
}

// after says when it makes sense to try again.
func (e *Error) after(wait time.Duration) *Error {
	e.RetryAfter = wait
	return e
}

// because keeps the cause for the log.
func (e *Error) because(err error) *Error {
	e.Err = err
	return e
}

// refused turns a refusal of State into an Error.
func refused(err error) *Error {
	if r, ok := errors.AsType[*peers.Refusal](err); ok {
		return &Error{Code: r.Code, Params: r.Params, Err: err}
	}
	return internal("apply a command", err)
}

// internal hides the cause from the person and keeps it for the log.
func internal(doing string, err error) *Error {
	return Refuse("internal").because(fmt.Errorf("%s: %w", doing, err))
}

// unproposed explains why a command did not get through Raft.
func unproposed(err error) *Error {
	switch {
	case errors.Is(err, store.ErrNoLeader):
		return Refuse("leader_lost").because(err)
	case errors.Is(err, context.Canceled):
		return Refuse("canceled").because(err)
	default:
		return Refuse("unconfirmed").because(err)
	}
}

// cause is what the log is told: the error beneath, not the refusal.
func cause(err error) error {
	var e *Error
	if errors.As(err, &e) && e.Err != nil {
		return e.Err
	}
	return err
}
