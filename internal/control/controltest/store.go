// Package controltest has what stands below control in tests: a store whose log is memory,
// a gateway that holds everything at once, and a search for secrets that got out.
package controltest

import (
	"context"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"vpnd/internal/store"
	"vpnd/peers"
)

// Store applies what is proposed at once, through the encoding, as Raft would.
type Store struct {
	Follower atomic.Bool  // another node leads, or nobody
	Slow     atomic.Int64 // ns that a commit takes

	mu     sync.Mutex
	state  *peers.State
	index  uint64
	bodies []peers.Body
	log    [][]byte
	fail   error
}

// NewStore returns an empty one.
func NewStore() *Store { return &Store{state: peers.New()} }

// NodeID is the same for all.
func (m *Store) NodeID() string { return strings.Repeat("ab", 16) }

// State is what the commands made.
func (m *Store) State() *peers.State { return m.state }

// Wait says that State has the index: it has whatever was proposed.
func (m *Store) Wait(ctx context.Context, _ uint64) error { return ctx.Err() }

// Leader says whether Propose would take a command.
func (m *Store) Leader() bool { return !m.Follower.Load() }

// SetFail makes the next proposals end so; nil ends that.
func (m *Store) SetFail(err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.fail = err
}

// Propose encodes and applies.
func (m *Store) Propose(ctx context.Context, c peers.Command) (uint64, peers.Result, error) {
	time.Sleep(time.Duration(m.Slow.Load()))
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return 0, peers.Result{}, err
	}
	if m.fail != nil {
		return 0, peers.Result{}, m.fail
	}
	if !m.Leader() {
		return 0, peers.Result{}, store.ErrNoLeader
	}
	b, err := peers.Encode(c)
	if err != nil {
		return 0, peers.Result{}, err
	}
	m.index++
	m.bodies = append(m.bodies, c.Body)
	m.log = append(m.log, b)
	res, err := m.state.Apply(m.index, b)
	if err != nil {
		panic(err)
	}
	return m.index, res, nil
}

// Log is the encoded commands.
func (m *Store) Log() [][]byte {
	m.mu.Lock()
	defer m.mu.Unlock()
	return append([][]byte(nil), m.log...)
}

// Proposed counts commands of one kind.
func Proposed[T peers.Body](m *Store) (n int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, b := range m.bodies {
		if _, ok := b.(T); ok {
			n++
		}
	}
	return n
}
