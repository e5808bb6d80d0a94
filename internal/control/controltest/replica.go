package controltest

import (
	"context"
	"sync"

	"vpnd/internal/store"
	"vpnd/peers"
)

// Replica is the store of a node that another one leads: it has what that one committed
// when somebody waits for it, and takes no command.
type Replica struct {
	of *Store

	mu    sync.Mutex
	state *peers.State
	has   int // commands
}

// NewReplica returns one that has nothing yet.
func NewReplica(of *Store) *Replica { return &Replica{of: of, state: peers.New()} }

// NodeID differs from the leader's.
func (r *Replica) NodeID() string { return "cd" + r.of.NodeID()[2:] }

// State is as far as somebody waited.
func (r *Replica) State() *peers.State { return r.state }

// Wait applies what the leader has.
func (r *Replica) Wait(ctx context.Context, index uint64) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, b := range r.of.Log()[r.has:] {
		if r.state.View().Index() >= index {
			break
		}
		r.has++
		if _, err := r.state.Apply(uint64(r.has), b); err != nil {
			return err
		}
	}
	return ctx.Err()
}

// Leader is another node.
func (r *Replica) Leader() bool { return false }

// Propose refuses.
func (r *Replica) Propose(context.Context, peers.Command) (uint64, peers.Result, error) {
	return 0, peers.Result{}, store.ErrNoLeader
}
