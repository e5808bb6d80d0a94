package control

import (
	"context"
	"errors"
	"fmt"
	"time"

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
	CodeLimit             = "limit"     // of how many, or how often
	CodeTooLarge          = "too_large" // more than one request may have
	CodeClockBehind       = "clock_behind"
	CodeNoLeader          = "no_leader"
	CodeUnavailable       = "unavailable"
	CodeCanceled          = "canceled" // by its caller
	CodeDenied            = "denied"
	CodeInternal          = "internal"
	CodeExpired           = "expired"
	CodeTooOld            = "too_old" // to tell whether it was carried out
	CodeUsed              = "used"
	CodePinned            = "pinned" // by a flag, the environment or a file of this gateway
)

// Error is what a use case refuses with. Message is for the person who asked, names the
// thing and the remedy, and holds no secret.
type Error struct {
	Code       string // stable word, one of the constants above
	Message    string
	RetryAfter time.Duration // locked, code_used: when it makes sense to try again
	Err        error         // the cause, for the log
}

// Error returns the message.
func (e *Error) Error() string { return e.Message }

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// refuse makes an Error without a cause.
func refuse(code, format string, args ...any) *Error {
	return &Error{Code: code, Message: fmt.Sprintf(format, args...)}
}

// notFound says that a named thing is not there, and how to see what is.
func notFound(kind, name, list string) *Error {
	return refuse(CodeNotFound, "There is no %s %q; `%s` shows those that there are.", kind, name, list)
}

// refusals gives each refusal of State its word.
var refusals = []struct {
	err  error
	code string
}{
	{peers.ErrNotFound, CodeNotFound},
	{peers.ErrExists, CodeExists},
	{peers.ErrInvalid, CodeInvalid},
	{peers.ErrDisabled, CodeDisabled},
	{peers.ErrLocked, CodeLocked},
	{peers.ErrCodeUsed, CodeCodeUsed},
	{peers.ErrExpired, CodeExpired},
	{peers.ErrUsed, CodeUsed},
	{peers.ErrKeyTaken, CodeKeyTaken},
	{peers.ErrFull, CodeFull},
	{peers.ErrConflict, CodeConflict},
	{peers.ErrOtherBrowser, CodeOtherBrowser},
	{peers.ErrNotEnrolled, CodeNotEnrolled},
	{peers.ErrLimit, CodeLimit},
	{peers.ErrTooOld, CodeTooOld},
	{peers.ErrLevel, CodeUnavailable},
}

// refused turns a refusal of State into an Error.
func refused(err error) *Error {
	if refusal, ok := errors.AsType[*peers.Refusal](err); ok {
		for _, r := range refusals {
			if refusal.Is(r.err) {
				return &Error{Code: r.code, Message: refusalText(refusal), Err: err}
			}
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
		Code:    CodeInternal,
		Message: "vpnd could not " + doing + ". Its log says why; please tell an administrator.",
		Err:     fmt.Errorf("%s: %w", doing, err),
	}
}

// unproposed explains why a command did not get through Raft.
func unproposed(err error) *Error {
	switch {
	case errors.Is(err, store.ErrNoLeader):
		return &Error{
			Code: CodeNoLeader, Err: err,
			Message: "No gateway can take changes at this moment. Nothing was changed; try again in a few seconds.",
		}
	case errors.Is(err, context.Canceled):
		return &Error{Code: CodeCanceled, Message: "The request was given up by its caller.", Err: err}
	default:
		return &Error{
			Code: CodeUnavailable, Err: err,
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
