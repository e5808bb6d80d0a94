package peers

import (
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/fxamacker/cbor/v2"
)

// A command whose outcome is unknown is sent again, maybe much later and by way of another
// node, and must not be carried out twice. So answers are remembered under the command's
// request id, and what is no longer remembered is known by its Raft index: a command says
// which index its maker had applied when it was first made (Command.Base), hence it was
// carried out after that or not at all. Where the memory does not reach back so far, the
// command is refused. No clock decides that, and no rate of commands defeats it.

const (
	keptAnswers   = 4096        // whatever their age
	recentAnswers = time.Minute // of the state's time: what is younger is kept beyond those,
	mostAnswers   = 65_536      // up to so many in all
	forgetAtOnce  = 1024        // how many one command forgets, so that none holds the log up
)

// request is a remembered answer.
type request struct {
	ID     ID
	Order  uint64 // from 1
	Index  uint64 // of Raft, where the command was carried out
	At     stamp  // the state's time then
	Kind   kind   // 0: left by level 1, which did not keep Index, At, Kind and Actor
	Actor  string
	Answer answer
	Whole  *Result // at level 1 instead of Answer: objects as they were then
}

// answer is a Result without its objects, which a repeat gets as they are by then.
type answer struct {
	Refusal                           *Refusal
	User, Device, Invitation, Session ID // a session is named by its device
	Policy                            uint64
	Count                             int
}

// Request names what somebody asked for, and since when it may have been carried out. The
// first edge makes it, once, before it looks at anything; it stays the same over every
// repeat. Several commands of one use case have ids that are derived from it, and its base.
type Request struct {
	ID   ID     // random
	Base uint64 // the index that its maker had applied; 0 below level 2
}

// Request makes one under an id that was drawn for it.
func (v *View) Request(id ID) Request {
	if v.m.Level < levelAnswers {
		return Request{ID: id}
	}
	return Request{id, v.m.Index}
}

// Answer is what a command was answered.
type Answer struct {
	Index  uint64 // of Raft, where it was carried out; 0 if that was not kept
	Actor  string
	Result Result // its objects as they are now; nil where they are gone
	kind   kind
}

// To says whether it was a command of b's kind.
func (a Answer) To(b Body) bool { return a.kind == b.kind() }

// Answer looks up what the command of this request id was answered. Who has evaluated
// something under an id, such as a code, looks here before evaluating it again. Without an
// answer it was not carried out by this view's index, or it is too old, which Apply tells.
func (v *View) Answer(id ID) (a Answer, ok bool) {
	r := get[request](v, tableRequests, byID, id[:])
	if r == nil {
		return Answer{}, false
	}
	return Answer{r.Index, r.Actor, r.result(v), r.Kind}, true
}

// repeated answers a command that was carried out already, or that may have been.
func (t *tx) repeated(c Command) (Result, bool) {
	if c.Request.IsZero() {
		return Result{}, false
	}
	if r := get[request](t, tableRequests, byID, c.Request[:]); r != nil {
		if r.Kind != 0 && (r.Kind != c.Body.kind() || r.Actor != c.Actor) {
			return Result{Err: refuse("request_reused", c.Request, r.Actor)}, true
		}
		return r.result(t), true
	}
	// A base that is not below the command's own index is of another life of the state,
	// such as the one before a backup was restored.
	if t.m.Level >= levelAnswers && (c.Base < t.m.Forgot || c.Base >= t.index) {
		return Result{Err: refuse("request_too_old", c.Base, t.m.Forgot)}, true
	}
	return Result{}, false
}

// remember keeps a command's answer, and forgets the oldest.
func (t *tx) remember(c Command, result Result) {
	t.m.Requests++
	r := &request{ID: c.Request, Order: t.m.Requests}
	if t.m.Level < levelAnswers {
		if refusal, ok := errors.AsType[*Refusal](result.Err); ok {
			result.Err = refusal.former()
		}
		r.Whole = &result
		t.put(tableRequests, r)
		if old := first[request](t, tableRequests, byOrder); t.m.Requests-old.Order >= keptAnswers {
			t.delete(tableRequests, old)
		}
		return
	}
	r.Index, r.At, r.Kind, r.Actor, r.Answer = t.index, t.m.Time, c.Body.kind(), c.Actor, result.lean()
	t.put(tableRequests, r)
	for range forgetAtOnce {
		old := first[request](t, tableRequests, byOrder)
		n := t.m.Requests - old.Order + 1
		if n <= keptAnswers || n <= mostAnswers && old.At > t.m.Time-stamp(recentAnswers) {
			break
		}
		t.m.Forgot = max(t.m.Forgot, old.Index)
		t.delete(tableRequests, old)
	}
}

// leanAnswers turns what level 1 has remembered into the form of level 2. What it has
// forgotten is not known, so nothing that was made before this command is carried out.
func (t *tx) leanAnswers() {
	for r := range scan[request](t, tableRequests, byOrder, nil) {
		t.put(tableRequests, &request{ID: r.ID, Order: r.Order, Answer: r.Whole.lean()})
	}
	t.m.Forgot = t.index
}

func (r Result) lean() answer {
	a := answer{Count: r.Count}
	a.Refusal, _ = errors.AsType[*Refusal](r.Err)
	if r.User != nil {
		a.User = r.User.ID
	}
	if r.Device != nil {
		a.Device = r.Device.ID
	}
	if r.Invitation != nil {
		a.Invitation = r.Invitation.ID
	}
	if r.Session != nil {
		a.Session = r.Session.Device
	}
	if r.Policy != nil {
		a.Policy = r.Policy.Version
	}
	return a
}

func (r *request) result(from reader) Result {
	if r.Whole != nil {
		return *r.Whole
	}
	a := r.Answer
	if a.Refusal != nil {
		return Result{Err: a.Refusal}
	}
	return Result{
		User: named[User](from, tableUsers, a.User), Device: named[Device](from, tableDevices, a.Device),
		Invitation: named[Invitation](from, tableInvitations, a.Invitation), Session: named[Session](from, tableSessions, a.Session),
		Policy: get[PolicyVersion](from, tablePolicies, byID, orderKey(a.Policy)), Count: a.Count,
	}
}

func named[T any](from reader, table string, id ID) *T {
	if id.IsZero() {
		return nil
	}
	return get[T](from, table, byID, id[:])
}

// wireRequest is a remembered answer in a snapshot of level 1.
type wireRequest struct {
	ID         ID          `cbor:"1,keyasint"`
	Order      uint64      `cbor:"2,keyasint"`
	Reason     uint64      `cbor:"3,keyasint,omitempty"` // number in sentinels
	Message    string      `cbor:"4,keyasint,omitempty"`
	User       *User       `cbor:"5,keyasint,omitempty"`
	Device     *Device     `cbor:"6,keyasint,omitempty"`
	Invitation *Invitation `cbor:"7,keyasint,omitempty"`
	Session    *Session    `cbor:"8,keyasint,omitempty"`
	Policy     uint64      `cbor:"9,keyasint,omitempty"` // its version: texts are large and kept for ever anyway
	Count      int         `cbor:"10,keyasint,omitempty"`
}

// wireAnswer is a remembered answer in a snapshot of level 2.
type wireAnswer struct {
	ID         ID       `cbor:"1,keyasint"`
	Order      uint64   `cbor:"2,keyasint"`
	Index      uint64   `cbor:"3,keyasint,omitempty"`
	At         stamp    `cbor:"4,keyasint,omitempty"`
	Kind       kind     `cbor:"5,keyasint,omitempty"`
	Actor      string   `cbor:"6,keyasint,omitempty"`
	Code       string   `cbor:"7,keyasint,omitempty"`
	Params     []string `cbor:"8,keyasint,omitempty"`
	User       ID       `cbor:"9,keyasint,omitzero"`
	Device     ID       `cbor:"10,keyasint,omitzero"`
	Invitation ID       `cbor:"11,keyasint,omitzero"`
	Session    ID       `cbor:"12,keyasint,omitzero"`
	Policy     uint64   `cbor:"13,keyasint,omitempty"`
	Count      int      `cbor:"14,keyasint,omitempty"`
}

func (r *request) former() wireRequest {
	w := wireRequest{ID: r.ID, Order: r.Order, User: r.Whole.User, Device: r.Whole.Device,
		Invitation: r.Whole.Invitation, Session: r.Whole.Session, Count: r.Whole.Count}
	if r.Whole.Policy != nil {
		w.Policy = r.Whole.Policy.Version
	}
	if refusal, ok := errors.AsType[*Refusal](r.Whole.Err); ok {
		// It was numbered by this package, or read as a number.
		w.Reason, _ = strconv.ParseUint(refusal.value("reason"), 10, 64)
		w.Message = refusal.value("sentence")
	}
	return w
}

func (w wireRequest) request(t *tx) (*request, error) {
	r := &request{ID: w.ID, Order: w.Order, Whole: &Result{User: w.User, Device: w.Device, Invitation: w.Invitation, Session: w.Session, Count: w.Count}}
	if w.Policy != 0 {
		r.Whole.Policy = get[PolicyVersion](t, tablePolicies, byID, orderKey(w.Policy))
	}
	if w.Reason > uint64(len(sentinels)) {
		return nil, fmt.Errorf("reason %d is unknown: it needs a newer vpnd", w.Reason)
	}
	if w.Reason > 0 {
		r.Whole.Err = formerRefusal(w.Reason, w.Message)
	}
	return r, nil
}

func (r *request) wire() wireAnswer {
	a := r.Answer
	w := wireAnswer{r.ID, r.Order, r.Index, r.At, r.Kind, r.Actor, "", nil, a.User, a.Device, a.Invitation, a.Session, a.Policy, a.Count}
	if a.Refusal != nil {
		w.Code = a.Refusal.Code
		for _, p := range a.Refusal.Params {
			w.Params = append(w.Params, p.Value)
		}
	}
	return w
}

func (w wireAnswer) request(*tx) (*request, error) {
	a := answer{nil, w.User, w.Device, w.Invitation, w.Session, w.Policy, w.Count}
	if w.Code != "" {
		var err error
		if a.Refusal, err = readRefusal(w.Code, w.Params); err != nil {
			return nil, err
		}
	}
	return &request{w.ID, w.Order, w.Index, w.At, w.Kind, w.Actor, a, nil}, nil
}

func readAnswers(t *tx, dec *cbor.Decoder, h header) error {
	for i := range h.Remembered {
		var (
			r   *request
			err error
		)
		if h.Format < levelAnswers {
			r, err = readAnswer[wireRequest](t, dec)
		} else {
			r, err = readAnswer[wireAnswer](t, dec)
		}
		if err == nil {
			t.put(tableRequests, r)
			err = t.err
		}
		if err != nil {
			return fmt.Errorf("reading %d of %d of table %s: %w", i+1, h.Remembered, tableRequests, err)
		}
	}
	return nil
}

func readAnswer[W interface{ request(*tx) (*request, error) }](t *tx, dec *cbor.Decoder) (*request, error) {
	var w W
	if err := dec.Decode(&w); err != nil {
		return nil, err
	}
	return w.request(t)
}
