package peers

import (
	"errors"
	"fmt"

	"github.com/fxamacker/cbor/v2"
)

// rememberedRequests is how many answers are kept for repeats.
const rememberedRequests = 4096

// request remembers what a command was answered.
type request struct {
	ID     ID
	Order  uint64 // from 1
	Result Result
}

// wireRequest is a remembered answer. Its objects are as they were then.
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

func (r *request) wire() wireRequest {
	w := wireRequest{ID: r.ID, Order: r.Order, User: r.Result.User, Device: r.Result.Device,
		Invitation: r.Result.Invitation, Session: r.Result.Session, Count: r.Result.Count}
	if r.Result.Policy != nil {
		w.Policy = r.Result.Policy.Version
	}
	if r.Result.Err != nil {
		w.Message = r.Result.Err.Error()
		for i, s := range sentinels {
			if errors.Is(r.Result.Err, s) {
				w.Reason = uint64(i) + 1
			}
		}
	}
	return w
}

func (w wireRequest) request(t *tx) (*request, error) {
	r := &request{w.ID, w.Order, Result{User: w.User, Device: w.Device, Invitation: w.Invitation, Session: w.Session, Count: w.Count}}
	if w.Policy != 0 {
		r.Result.Policy = get[PolicyVersion](t, tablePolicies, byID, orderKey(w.Policy))
	}
	if w.Reason > uint64(len(sentinels)) {
		return nil, fmt.Errorf("reason %d is unknown: it needs a newer vpnd", w.Reason)
	}
	if w.Reason > 0 {
		r.Result.Err = &refusal{sentinels[w.Reason-1], w.Message}
	}
	return r, nil
}

func (t *tx) remember(id ID, result Result) {
	t.m.Requests++
	t.put(tableRequests, &request{id, t.m.Requests, result})
	if t.m.Requests > rememberedRequests {
		if old := get[request](t, tableRequests, byOrder, orderKey(t.m.Requests-rememberedRequests)); old != nil {
			t.delete(tableRequests, old)
		}
	}
}

func readRequests(t *tx, dec *cbor.Decoder, n uint64) error {
	for i := range n {
		var w wireRequest
		err := dec.Decode(&w)
		if err == nil {
			var r *request
			if r, err = w.request(t); err == nil {
				t.put(tableRequests, r)
				err = t.err
			}
		}
		if err != nil {
			return fmt.Errorf("reading %d of %d of table %s: %w", i+1, n, tableRequests, err)
		}
	}
	return nil
}
