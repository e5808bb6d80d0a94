package store

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"vpnd/peers"
)

// fsm is all that stands between Raft and peers.State. Raft calls Apply, Snapshot and
// Restore from one goroutine.
type fsm struct {
	state *peers.State
	fail  func(error)
	// snapped is told how long a snapshot took; nil: nobody wants to know.
	snapped func(time.Duration)

	mu      sync.Mutex
	applied uint64        // the last command's index
	more    chan struct{} // closed and replaced when applied grows; nil while nobody waits
	broken  error         // a committed command that could not be applied
	refused error         // a snapshot that could not be read
}

func newFSM(s *peers.State, fail func(error)) *fsm { return &fsm{state: s, fail: fail} }

// Apply answers with a peers.Result, or with the error that stops this node. After that
// one it applies nothing more, so that no later command stands without an earlier one.
func (f *fsm) Apply(l *raft.Log) any {
	f.mu.Lock()
	broken := f.broken
	f.mu.Unlock()
	if broken != nil {
		return broken
	}
	r, err := f.state.Apply(l.Index, l.Data)
	f.mu.Lock()
	if err != nil {
		if newer, ok := errors.AsType[*peers.TooNew](err); ok {
			err = newer // which has the remedy
		} else {
			err = fmt.Errorf("apply the command at Raft index %d: %w; it may be of a newer vpnd: run that one, or restore a backup", l.Index, err)
		}
		f.broken = err
		f.mu.Unlock()
		f.fail(err)
		return err
	}
	f.advanceLocked(l.Index)
	f.mu.Unlock()
	return r
}

func (f *fsm) advanceLocked(i uint64) {
	f.applied = i
	if f.more != nil {
		close(f.more)
		f.more = nil
	}
}

// progress returns the last command's index, and a channel that is closed when it grows.
func (f *fsm) progress() (uint64, <-chan struct{}) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.more == nil {
		f.more = make(chan struct{})
	}
	return f.applied, f.more
}

// Snapshot refuses after a failed command: Raft counts that one as applied, so the
// snapshot would drop it for good.
func (f *fsm) Snapshot() (raft.FSMSnapshot, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.broken != nil {
		return nil, f.broken
	}
	return snapshot{f.state.Snapshot(), f.snapped}, nil
}

// Restore replaces the state by a snapshot's.
func (f *fsm) Restore(r io.ReadCloser) error {
	err := f.state.Restore(r)
	f.mu.Lock()
	defer f.mu.Unlock()
	if err != nil {
		f.refused = fmt.Errorf("read a snapshot: %w", err)
		return f.refused
	}
	f.advanceLocked(f.state.View().Index())
	return nil
}

func (f *fsm) restoreError() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.refused
}

// snapshot writes a view of the state, beside the commands that follow it.
type snapshot struct {
	view *peers.View
	took func(time.Duration) // nil: nobody wants to know
}

func (s snapshot) Persist(sink raft.SnapshotSink) error {
	begin := time.Now()
	w := bufio.NewWriterSize(sink, 1<<16)
	_, err := s.view.WriteTo(w)
	if err = errors.Join(err, w.Flush()); err != nil {
		return errors.Join(fmt.Errorf("write a snapshot: %w", err), sink.Cancel())
	}
	err = sink.Close()
	if err == nil && s.took != nil {
		s.took(time.Since(begin))
	}
	return err
}

func (s snapshot) Release() {}
