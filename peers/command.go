package peers

import "time"

// Command is one change of State. Its encoding is canonical CBOR in an envelope that
// carries kind, request id, time and actor; unknown fields and unknown kinds are
// errors. A released kind is frozen: a changed meaning is a new kind.
type Command struct {
	Request ID        // a repeat returns the first answer, or is refused as too old
	Base    uint64    // the Raft index that its maker had applied when it was first made; 0 below level 2
	At      time.Time // the proposer's clock, UTC; State's time is the latest it has seen
	Actor   string    // for the audit log
	Body    Body
}

// Body is one of the structs that kinds.go numbers; each stands with its subject.
type Body interface {
	kind() kind
	// apply checks everything before it changes anything; its error is a refusal.
	apply(t *tx) (Result, error)
}

// Result is what Apply returns: Err is one of the sentinel errors of this package
// (errors.Is works on a wrapping of it), and then nothing has changed but counters.
type Result struct {
	Err        error
	User       *User
	Device     *Device
	Invitation *Invitation
	Session    *Session
	Policy     *PolicyVersion
	Count      int // SessionEnd, Expire: how many
}
