// Package peers is the replicated state: users, devices, invitations, sessions,
// addresses, settings, policy versions and a vault of sealed values, and the commands that
// change them, with a file for each subject.
//
// Apply is deterministic: no clock, no randomness, no crypto, no dependence on map
// order. Whoever proposes a command stamps time, ids and random values into it.
package peers

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/hashicorp/go-memdb"
)

// State is the replicated state. Apply is called by one goroutine, Raft's; everything
// else may be called by any.
type State struct {
	mu  sync.Mutex // one Apply or Restore at a time
	now atomic.Pointer[View]
}

// New returns an empty State.
func New() *State {
	db, err := memdb.NewMemDB(schema())
	if err != nil {
		panic(fmt.Sprintf("peers: the tables contradict each other: %v", err))
	}
	s := &State{}
	s.now.Store(newView(db, meta{Level: levelFirst}, &journal{}))
	return s
}

// Apply carries out the command of Raft index i. An error of Apply itself (undecodable,
// unknown kind) means that this node cannot go on; a refused command is Result.Err.
func (s *State) Apply(i uint64, command []byte) (Result, error) {
	c, err := Decode(command)
	if err != nil {
		return Result{}, fmt.Errorf("applying index %d: %w", i, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	old := s.now.Load()
	if i <= old.m.Index {
		return Result{}, fmt.Errorf("applying index %d: index %d is applied already", i, old.m.Index)
	}
	t := &tx{db: old.db, txn: old.db.Txn(true), m: old.m, index: i, actor: c.Actor}
	defer func() { t.txn.Abort() }() // does nothing after Commit
	t.m.Index = i
	result := t.run(c)
	if t.err != nil {
		return Result{}, fmt.Errorf("applying index %d, a command of kind %d: %w", i, c.Body.kind(), t.err)
	}
	t.txn.Commit()
	old.journal.add(i, t.touched)
	s.publish(newView(old.db, t.m, old.journal))
	return result, nil
}

// publish makes v the current view and wakes who waits for a change.
func (s *State) publish(v *View) {
	close(s.now.Swap(v).changed)
}

// Snapshot takes an O(1) copy whose WriteTo can run beside Apply.
func (s *State) Snapshot() *View { return s.View() }

// View returns a consistent, unchanging view of the state as it is now. It is cheap.
func (s *State) View() *View { return s.now.Load() }

// meta is the part of the state that is not in tables.
type meta struct {
	Index    uint64
	Time     stamp
	Settings *Settings // nil before Init; shared and read-only
	Serial   uint32    // of the last accepted code
	NextHost uint32    // the lowest place in the network that was never given; see address.go
	Releases uint64    // how many addresses were released, ever
	Requests uint64    // how many commands are or were in the table of requests
	Forgot   uint64    // the highest index whose answer is not there any more; from level 2
	Level    uint64    // see level.go
	Vpnd     string    // the version of the vpnd that raised it, from level 3
	Policy   uint64    // the current version
	Pending  *Pending  // the version that waits for a confirmation; shared and read-only

	// Follow from the rest.
	users, devices, sessions, audits int
	vault, vaultSize, vaultLocks     int    // values, the bytes of all, locks that are there
	selfTests                        int    // that are there
	nextPlace                        uint32 // the highest place that was ever given: every one up to it is in the table
	policyAt, settingsAt             uint64 // the index of the last change
}

// tx is one command under way.
type tx struct {
	db      *memdb.MemDB
	txn     *memdb.Txn
	m       meta
	index   uint64
	actor   string
	touched []ID
	err     error // the first failure of the tables: a fault of this program
}

// run answers a command, and remembers the answer.
func (t *tx) run(c Command) Result {
	if result, ok := t.repeated(c); ok {
		return result
	}
	if level := c.level(); level > t.m.Level {
		return Result{Err: refuse("level_needed", level, t.m.Level)}
	}
	before := t.m
	var result Result
	err := t.tick(c)
	if err == nil {
		before.Time = t.m.Time
		result, err = t.apply(c)
	}
	if err != nil {
		// Nothing has changed: refusals come before changes. The transaction is begun
		// anew all the same, so that a mistake there cannot leave half a change.
		t.txn.Abort()
		t.txn, t.m, t.touched = t.db.Txn(true), before, nil
		result = Result{Err: err}
	}
	if !c.Request.IsZero() {
		t.remember(c, result)
	}
	return result
}

func (t *tx) apply(c Command) (Result, error) {
	if err := checkLine("actor", c.Actor, maxActor); err != nil {
		return Result{}, err
	}
	_, first := c.Body.(Init)
	if t.m.Settings == nil && !first {
		return Result{}, refuse("state_empty")
	}
	result, err := c.Body.apply(t)
	var r *Refusal
	if err != nil && !errors.As(err, &r) {
		t.fail(err)
	}
	return result, err
}
