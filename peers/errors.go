package peers

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
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
	ErrTooOld       = errors.New("made too long ago")
	ErrLevel        = errors.New("not possible before all gateways are upgraded")
)

// ErrUnknownKind means that a log or snapshot was written by a newer release. A node
// that meets it must stop: the command that it cannot read may be a revocation.
var ErrUnknownKind = errors.New("unknown kind of command")

// sentinels numbers the refusals for snapshots, from 1; append only.
var sentinels = []error{
	ErrNotFound, ErrExists, ErrInvalid, ErrDisabled, ErrLocked, ErrCodeUsed, ErrExpired,
	ErrUsed, ErrKeyTaken, ErrFull, ErrConflict, ErrOtherBrowser, ErrNotEnrolled, ErrLimit,
	ErrTooOld, ErrLevel,
}

// Refusal is why a command was refused: a code and what it is about. The sentinel is found
// by errors.Is. State keeps it, as a repeated request must be told the same.
type Refusal struct {
	Code   string
	Params []Param
}

// Param is one parameter of a refusal.
type Param struct{ Name, Value string }

// codeFormer is the code of refusals that have a sentence, as level 1 kept them; their
// parameters are the number of the sentinel and the sentence.
const codeFormer = "former"

func (r *Refusal) Error() string { return r.Params[1].Value }

// Is implements errors.Is for the sentinels.
func (r *Refusal) Is(target error) bool {
	n, err := strconv.Atoi(r.Params[0].Value)
	return err == nil && 0 < n && n <= len(sentinels) && sentinels[n-1] == target
}

func former(reason uint64, sentence string) *Refusal {
	return &Refusal{codeFormer, []Param{{"reason", strconv.FormatUint(reason, 10)}, {"sentence", sentence}}}
}

func refuse(reason error, format string, args ...any) error {
	return former(uint64(slices.Index(sentinels, reason)+1), fmt.Sprintf(format, args...))
}

// readRefusal makes a stored refusal.
func readRefusal(code string, values []string) (*Refusal, error) {
	if code != codeFormer || len(values) != 2 {
		return nil, fmt.Errorf("the refusal %q with %d parameters is unknown: it needs a newer vpnd", code, len(values))
	}
	return &Refusal{code, []Param{{"reason", values[0]}, {"sentence", values[1]}}}, nil
}
