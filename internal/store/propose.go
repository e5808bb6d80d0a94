package store

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"time"

	"github.com/hashicorp/raft"

	"vpnd/peers"
)

// Propose commits cmd and returns its Raft index and result. A refused command has a
// nil error and Result.Err. Concurrent callers share an fsync.
//
// When leadership is lost while cmd is on its way, Propose repeats it under its request
// id as soon as this node leads again, until ctx ends: then it says ErrUnknown. A
// command without a request id is made here, and gets one.
func (s *Store) Propose(ctx context.Context, cmd peers.Command) (uint64, peers.Result, error) {
	if cmd.Request == (peers.ID{}) {
		var id peers.ID
		rand.Read(id[:])
		made := s.State().View().Request(id)
		cmd.Request, cmd.Base = made.ID, made.Base
	}
	b, err := peers.Encode(cmd)
	if err != nil {
		return 0, peers.Result{}, fmt.Errorf("encode a command: %w", err)
	}
	if !s.Leader() {
		return 0, peers.Result{}, s.noLeader()
	}
	sent := false // whether an earlier attempt may be committed
	for {
		i, result, err := s.attempt(ctx, b)
		switch {
		case err == nil:
			return i, result, nil
		case notTaken(err) && !sent:
			return 0, peers.Result{}, s.noLeader()
		case notTaken(err):
		case errors.Is(err, raft.ErrLeadershipLost):
			sent = true
		default:
			return 0, peers.Result{}, fmt.Errorf("%w: %w", ErrUnknown, err)
		}
		if err := s.regain(ctx); err != nil {
			return 0, peers.Result{}, fmt.Errorf("%w: %w", ErrUnknown, err)
		}
	}
}

// attempt hands b to Raft once and waits for what becomes of it.
func (s *Store) attempt(ctx context.Context, b []byte) (uint64, peers.Result, error) {
	if err := ctx.Err(); err != nil {
		return 0, peers.Result{}, raft.ErrEnqueueTimeout
	}
	var timeout time.Duration // none
	if d, ok := ctx.Deadline(); ok {
		timeout = max(time.Until(d), time.Nanosecond)
	}
	// Raft answers neither when ctx ends nor, for some futures, when it shuts down.
	done := make(chan raft.ApplyFuture, 1)
	go func() {
		f := s.raft.Load().Apply(b, timeout)
		_ = f.Error() // waits
		done <- f
	}()
	select {
	case f := <-done:
		if err := f.Error(); err != nil {
			return 0, peers.Result{}, err
		}
		switch r := f.Response().(type) {
		case peers.Result:
			return f.Index(), r, nil
		case error:
			return 0, peers.Result{}, r // the node has failed
		default:
			return 0, peers.Result{}, fmt.Errorf("unexpected answer %T of the state machine", r)
		}
	case <-s.dead:
		return 0, peers.Result{}, s.stopped()
	case <-ctx.Done():
		return 0, peers.Result{}, ctx.Err()
	}
}

// notTaken says whether Raft's error means that the command is not in the log.
func notTaken(err error) bool {
	return errors.Is(err, raft.ErrNotLeader) ||
		errors.Is(err, raft.ErrLeadershipTransferInProgress) ||
		errors.Is(err, raft.ErrEnqueueTimeout)
}

func (s *Store) noLeader() error {
	select {
	case <-s.dead:
		return fmt.Errorf("%w: %w", ErrNoLeader, s.stopped())
	default:
		return ErrNoLeader
	}
}

// regain returns when this node leads again. It gives up when another one does: the
// command has to be repeated there.
func (s *Store) regain(ctx context.Context) error {
	const pause = 10 * time.Millisecond // to let Raft notice what it has just told us
	for {
		select {
		case <-time.After(pause):
		case <-s.dead:
			return s.stopped()
		case <-ctx.Done():
			return ctx.Err()
		}
		if s.Leader() {
			return nil
		}
		if _, id := s.raft.Load().LeaderWithID(); id != "" && id != raft.ServerID(s.id) {
			return errors.New("another node leads now")
		}
	}
}
