package peers

import (
	"errors"
	"fmt"
)

// What a command can be refused for. Callers branch on these with errors.Is; the
// message of the wrapping error names the thing and the remedy.
var (
	ErrNotFound     = errors.New("not found")
	ErrExists       = errors.New("exists already")
	ErrInvalid      = errors.New("invalid")
	ErrDisabled     = errors.New("disabled")
	ErrLocked       = errors.New("locked")
	ErrCodeUsed     = errors.New("code used already")
	ErrExpired      = errors.New("expired")
	ErrUsed         = errors.New("used already")
	ErrKeyTaken     = errors.New("key is known already")
	ErrFull         = errors.New("no address left")
	ErrConflict     = errors.New("changed meanwhile")
	ErrOtherBrowser = errors.New("continued in another browser")
	ErrNotEnrolled  = errors.New("no authenticator yet")
	ErrLimit        = errors.New("limit reached")
)

// ErrUnknownKind means that a log or snapshot was written by a newer release. A node
// that meets it must stop: the command that it cannot read may be a revocation.
var ErrUnknownKind = errors.New("unknown kind of command")

// sentinels numbers the refusals for snapshots, from 1; append only.
var sentinels = []error{
	ErrNotFound, ErrExists, ErrInvalid, ErrDisabled, ErrLocked, ErrCodeUsed, ErrExpired,
	ErrUsed, ErrKeyTaken, ErrFull, ErrConflict, ErrOtherBrowser, ErrNotEnrolled, ErrLimit,
}

// refusal is why a command was refused. Its message is whole by itself; the sentinel
// is found by errors.Is. It survives a snapshot, as a repeated request must be told
// the same.
type refusal struct {
	reason  error
	message string
}

func (r *refusal) Error() string { return r.message }
func (r *refusal) Unwrap() error { return r.reason }

func refuse(reason error, format string, args ...any) error {
	return &refusal{reason, fmt.Sprintf(format, args...)}
}
