package peers

import (
	"fmt"
	"slices"
	"time"

	"github.com/hashicorp/go-memdb"
)

// Entry is a line of the audit log.
type Entry struct {
	Index  uint64 // Raft index
	At     time.Time
	Actor  string // "alice", "uid 0", "portal", "gateway"
	Action string // "user.add", "session.start"
	Target string // "alice/laptop"
	Detail string
}

type wireEntry struct {
	Index  uint64 `cbor:"1,keyasint"`
	At     stamp  `cbor:"2,keyasint"`
	Actor  string `cbor:"3,keyasint,omitempty"`
	Action string `cbor:"4,keyasint,omitempty"`
	Target string `cbor:"5,keyasint,omitempty"`
	Detail string `cbor:"6,keyasint,omitempty"`
}

// MarshalCBOR gives the canonical encoding.
func (e Entry) MarshalCBOR() ([]byte, error) {
	return encMode.Marshal(wireEntry{e.Index, stampOf(e.At), e.Actor, e.Action, e.Target, e.Detail})
}

// UnmarshalCBOR reads what MarshalCBOR wrote.
func (e *Entry) UnmarshalCBOR(b []byte) error {
	w, err := unwire[wireEntry](b)
	*e = Entry{w.Index, w.At.time(), w.Actor, w.Action, w.Target, w.Detail}
	return err
}

// Note is an audit entry alone: something that happened to the gateway.
type Note struct {
	Action string `cbor:"1,keyasint,omitempty"`
	Target string `cbor:"2,keyasint,omitempty"`
	Detail string `cbor:"3,keyasint,omitempty"`
}

func (c Note) apply(t *tx) (Result, error) {
	for _, f := range []struct {
		code, text string
		most       int
	}{{"note_action", c.Action, maxActor}, {"note_target", c.Target, maxNote}, {"note_detail", c.Detail, maxNote}} {
		if err := checkLine(f.code, f.text, f.most); err != nil {
			return Result{}, err
		}
	}
	if c.Action == "" {
		return Result{}, refuse("note_no_action")
	}
	t.audit(c.Action, c.Target, c.Detail)
	return Result{}, nil
}

// audit notes what the command does; once for each command.
func (t *tx) audit(action, target, detail string) {
	t.put(tableAudit, &Entry{t.index, t.m.Time.time(), t.actor, action, target, detail})
	t.m.audits++
	if t.m.audits > maxAudit {
		if old := first[Entry](t, tableAudit, byID); old != nil {
			t.delete(tableAudit, old)
			t.m.audits--
		}
	}
}

// Audit returns the first limit entries after a Raft index, or with after 0 the newest
// limit entries; always oldest first. A limit below 1 is none.
func (v *View) Audit(after uint64, limit int) []Entry {
	var (
		it  memdb.ResultIterator
		err error
	)
	if after == 0 {
		it, err = v.txn.GetReverse(tableAudit, byID)
	} else {
		it, err = v.txn.LowerBound(tableAudit, byID, orderKey(after+1))
	}
	if err != nil {
		v.fail(err)
	}
	var entries []Entry
	for o := it.Next(); o != nil && (limit < 1 || len(entries) < limit); o = it.Next() {
		entries = append(entries, *o.(*Entry))
	}
	if after == 0 {
		slices.Reverse(entries)
	}
	return entries
}

func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}
