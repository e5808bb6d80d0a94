package control

import (
	"context"
	"errors"
	"fmt"
	"time"

	"google.golang.org/grpc/codes"

	"vpnd/internal/store"
	"vpnd/peers"
)

// Codes of Error: stable words that programs may branch on.
const (
	CodeNotFound          = "not_found"
	CodeExists            = "exists"
	CodeInvalid           = "invalid"
	CodeDisabled          = "disabled"
	CodeLocked            = "locked"       // RetryAfter says how long
	CodeCodeInvalid       = "code_invalid" // counted, unless it was not six digits
	CodeCodeUsed          = "code_used"    // RetryAfter says when the next one comes
	CodeNotEnrolled       = "not_enrolled"
	CodeInvitationUnknown = "invitation_unknown"
	CodeInvitationExpired = "invitation_expired"
	CodeInvitationUsed    = "invitation_used"
	CodeOtherBrowser      = "other_browser"
	CodeKeyTaken          = "key_taken"
	CodeFull              = "full"
	CodeConflict          = "conflict"
	CodeLimit             = "limit"
	CodeClockBehind       = "clock_behind"
	CodeNoLeader          = "no_leader"
	CodeUnavailable       = "unavailable"
	CodeDenied            = "denied"
	CodeInternal          = "internal"
	CodeExpired           = "expired"
	CodeUsed              = "used"
)

// Error is what a use case refuses with. Message is for the person who asked, names the
// thing and the remedy, and holds no secret.
type Error struct {
	Code       string // stable word, one of the constants above
	Message    string
	GRPC       codes.Code
	RetryAfter time.Duration // locked, code_used: when it makes sense to try again
	Err        error         // the cause, for the log
}

// Error returns the message.
func (e *Error) Error() string { return e.Message }

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// refuse makes an Error without a cause.
func refuse(c codes.Code, code, format string, args ...any) *Error {
	return &Error{Code: code, GRPC: c, Message: fmt.Sprintf(format, args...)}
}

// notFound says that a named thing is not there, and how to see what is.
func notFound(kind, name, list string) *Error {
	return refuse(codes.NotFound, CodeNotFound, "There is no %s %q; `%s` shows those that there are.", kind, name, list)
}

// refusals gives each refusal of State its word and its gRPC code.
var refusals = []struct {
	err  error
	code string
	grpc codes.Code
}{
	{peers.ErrNotFound, CodeNotFound, codes.NotFound},
	{peers.ErrExists, CodeExists, codes.AlreadyExists},
	{peers.ErrInvalid, CodeInvalid, codes.InvalidArgument},
	{peers.ErrDisabled, CodeDisabled, codes.FailedPrecondition},
	{peers.ErrLocked, CodeLocked, codes.ResourceExhausted},
	{peers.ErrCodeUsed, CodeCodeUsed, codes.Unauthenticated},
	{peers.ErrExpired, CodeExpired, codes.FailedPrecondition},
	{peers.ErrUsed, CodeUsed, codes.FailedPrecondition},
	{peers.ErrKeyTaken, CodeKeyTaken, codes.AlreadyExists},
	{peers.ErrFull, CodeFull, codes.ResourceExhausted},
	{peers.ErrConflict, CodeConflict, codes.Aborted},
	{peers.ErrOtherBrowser, CodeOtherBrowser, codes.FailedPrecondition},
	{peers.ErrNotEnrolled, CodeNotEnrolled, codes.FailedPrecondition},
	{peers.ErrLimit, CodeLimit, codes.ResourceExhausted},
}

// refused turns a refusal of State into an Error. State's own message is written for
// people, so it is passed on.
func refused(err error) *Error {
	for _, r := range refusals {
		if errors.Is(err, r.err) {
			return &Error{Code: r.code, GRPC: r.grpc, Message: sentence(err.Error()), Err: err}
		}
	}
	return internal("apply a command", err)
}

// sentence makes an error's text one that a page can show.
func sentence(text string) string {
	if text == "" || text[0] < 'a' || text[0] > 'z' {
		return text
	}
	return capital(text) + "."
}

// capital begins a sentence with a text.
func capital(text string) string {
	if text == "" || text[0] < 'a' || text[0] > 'z' {
		return text
	}
	return string(text[0]-'a'+'A') + text[1:]
}

// internal hides the cause from the person and keeps it for the log.
func internal(doing string, err error) *Error {
	return &Error{
		Code: CodeInternal, GRPC: codes.Internal,
		Message: "vpnd could not " + doing + ". Its log says why; please tell an administrator.",
		Err:     fmt.Errorf("%s: %w", doing, err),
	}
}

// unproposed explains why a command did not get through Raft.
func unproposed(err error) *Error {
	switch {
	case errors.Is(err, store.ErrNoLeader):
		return &Error{
			Code: CodeNoLeader, GRPC: codes.Unavailable, Err: err,
			Message: "No gateway can take changes at this moment. Nothing was changed; try again in a few seconds.",
		}
	case errors.Is(err, context.Canceled):
		return &Error{Code: CodeUnavailable, GRPC: codes.Canceled, Message: "The request was given up by its caller.", Err: err}
	default:
		return &Error{
			Code: CodeUnavailable, GRPC: codes.Unavailable, Err: err,
			Message: "The gateway could not confirm the change in time. Look whether it was made before you try again.",
		}
	}
}

// cause is what the log is told: the error beneath, not the text for people.
func cause(err error) error {
	var e *Error
	if errors.As(err, &e) && e.Err != nil {
		return e.Err
	}
	return err
}
