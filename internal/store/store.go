// Package store replicates the state with Raft: log, snapshots, transport, membership.
// It is the only importer of raft. A single node is the same path with one voter.
//
// A command is acknowledged when it is on the disk of a majority and this node's state
// has applied it. A node that cannot apply a committed command stops: to go on without
// it would be another state than everyone else's.
package store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"

	"vpnd/peers"
)

// Errors that callers branch on.
var (
	// ErrNoLeader means that nothing was proposed: there is no leader now.
	ErrNoLeader = errors.New("no leader")
	// ErrUnknown means that the command may or may not be committed: repeat it with the
	// same request id to learn which.
	ErrUnknown = errors.New("outcome unknown")
	// ErrOtherNode means that the folder belongs to a node of another id.
	ErrOtherNode = errors.New("data folder of another node")
	// ErrInUse means that another process has the folder open.
	ErrInUse = errors.New("data folder in use")
	// ErrClosed means that the store was closed or has failed.
	ErrClosed = errors.New("store closed")
)

// Config is what Open needs.
type Config struct {
	Dir    string       // made if missing, mode 0700
	NodeID string       // 32 hex digits; empty: the folder's, or a new one made at the first start
	Log    *slog.Logger // nil: nothing is logged
	// Fatal is called when this node cannot go on (an unknown command kind, a failing
	// disk). The store has stopped serving by then.
	Fatal func(error)
	// Wrote and Snapped, if given, are told how long it took to have entries of the log on the
	// disk, and to write a snapshot. They are called by Raft's goroutines.
	Wrote, Snapped func(time.Duration)
}

// Store is one node's part of the replicated state.
type Store struct {
	id    string
	log   *slog.Logger
	fatal func(error)
	fsm   *fsm
	raft  atomic.Pointer[raft.Raft]
	files io.Closer // log and lock

	// dead is closed when the store stops serving; why says for which reason.
	dead    chan struct{}
	dying   sync.Once
	why     error
	halting sync.Once
	halted  raft.Future // of Raft's end; only the first Shutdown gives one that waits
	closing sync.Once
	closed  error         // what Close returned
	led     chan struct{} // closed when the goroutine lead has ended

	mu      sync.Mutex
	term    uint64        // the Raft term in which this node may act as leader; 0 if none
	changed chan struct{} // closed and replaced when term changes
}

// Open opens or makes the node's data and starts Raft. On a fresh folder it bootstraps a
// cluster of this one voter. It returns before a leader is known.
func Open(ctx context.Context, c Config) (*Store, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	logger := newLogger(c.Log)
	f, err := openFolder(c.Dir, c.NodeID, logger)
	if err != nil {
		return nil, err
	}
	s, err := start(c, parts{
		id: f.id, logs: f.log, stable: f.log, snapshots: f.snapshots,
		transport: newTransport(newAlone(f.id), logger), timers: aloneTimers, files: f,
	}, logger)
	if err != nil {
		f.Close()
		if errors.Is(err, ErrOtherNode) {
			return nil, fmt.Errorf("%w (in %s)", err, f.dir)
		}
		if newer, ok := errors.AsType[*peers.TooNew](err); ok {
			return nil, newer // which has the remedy
		}
		return nil, fmt.Errorf("read the state in %s: %w; if the disk is sound, restore a backup", filepath.Join(f.dir, raftDir), err)
	}
	return s, nil
}

// parts are what a node is made of: files and a network, or their stand-ins in a test.
type parts struct {
	id        string
	logs      raft.LogStore
	stable    raft.StableStore
	snapshots raft.SnapshotStore
	transport raft.Transport
	timers    timers
	files     io.Closer // nil: none
}

// timers are Raft's. Every one of them is at most as long as the one before it.
type timers struct{ election, heartbeat, lease time.Duration }

// aloneTimers are for the only voter: it waits for nobody, so that it serves a fifth of a
// second after its start at the latest. Several voters want Raft's defaults, and a lease
// cannot be changed while Raft runs: whoever adds the second one starts it again.
var aloneTimers = timers{100 * time.Millisecond, 100 * time.Millisecond, 100 * time.Millisecond}

// Snapshots: a restart reads the newest one and applies the log after it. At 1,000
// commands a second that log is never longer than some 20,000 entries.
const (
	snapshotThreshold = 8192
	snapshotInterval  = 10 * time.Second // and up to twice that, at random
	trailingLogs      = 10240            // kept behind a snapshot, for a follower that lags
	maxBatch          = 512              // commands that share one fsync, at most
)

// start starts Raft.
func start(c Config, p parts, logger hclog.Logger) (*Store, error) {
	s := &Store{
		id: p.id, log: c.Log, fatal: c.Fatal, files: p.files,
		dead: make(chan struct{}), led: make(chan struct{}), changed: make(chan struct{}),
	}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	s.fsm = newFSM(peers.New(), s.fail)
	s.fsm.snapped = c.Snapped

	rc := raft.DefaultConfig()
	rc.LocalID = raft.ServerID(p.id)
	rc.Logger = logger
	rc.ElectionTimeout, rc.HeartbeatTimeout, rc.LeaderLeaseTimeout = p.timers.election, p.timers.heartbeat, p.timers.lease
	rc.SnapshotThreshold, rc.SnapshotInterval, rc.TrailingLogs = snapshotThreshold, snapshotInterval, trailingLogs
	rc.MaxAppendEntries = maxBatch
	rc.NoLegacyTelemetry = true

	r, err := newRaft(rc, s.fsm, failingLog{p.logs, s.fail, c.Wrote}, failingStable{p.stable, s.fail}, p.snapshots, p.transport)
	if err != nil {
		if cause := s.fsm.restoreError(); cause != nil {
			err = fmt.Errorf("%w (%w)", err, cause)
		}
		return nil, err
	}
	if err := ownState(r, p.id); err != nil {
		return nil, errors.Join(err, r.Shutdown().Error())
	}
	s.raft.Store(r)
	select {
	case <-s.dead: // the first commands may have failed before the line above
		s.halt()
	default:
	}
	go s.lead(r)
	return s, nil
}

// ownState refuses the state of a cluster of which this node is no member: it would wait
// for a leader for ever.
func ownState(r *raft.Raft, id string) error {
	f := r.GetConfiguration()
	if err := f.Error(); err != nil {
		return fmt.Errorf("read who is in the cluster: %w", err)
	}
	servers := f.Configuration().Servers
	var of []string
	for _, s := range servers {
		if string(s.ID) == id {
			return nil
		}
		of = append(of, string(s.ID))
	}
	if len(of) == 0 {
		return nil // nobody has told it yet
	}
	return fmt.Errorf("%w: its file %s/%s says node %s, but what is in it is of node %s: put the file back, or give another folder with --data",
		ErrOtherNode, raftDir, nodeIDFile, id, strings.Join(of, ", "))
}

// newRaft is raft.NewRaft, which panics where the log has a hole.
func newRaft(c *raft.Config, f raft.FSM, l raft.LogStore, st raft.StableStore, sn raft.SnapshotStore, t raft.Transport) (r *raft.Raft, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("start Raft: %v", p)
		}
	}()
	return raft.NewRaft(c, f, l, st, sn, t)
}

// fail stops the node for good and says why, once.
func (s *Store) fail(err error) {
	s.die(err, func() {
		s.log.Warn("this node cannot go on", "what", "store.fail", "why", err)
		if s.fatal != nil {
			go s.fatal(err) // not on Raft's goroutine, which Close waits for
		}
	})
}

func (s *Store) die(why error, then func()) {
	s.dying.Do(func() {
		s.why = why
		close(s.dead)
		s.halt()
		then()
	})
}

// halt tells Raft to stop; the future waits until it has.
func (s *Store) halt() raft.Future {
	r := s.raft.Load()
	if r == nil {
		return nil
	}
	s.halting.Do(func() { s.halted = r.Shutdown() })
	return s.halted
}

// NodeID returns this node's id.
func (s *Store) NodeID() string { return s.id }

// State returns the state; it is read by anyone and changed by Raft alone.
func (s *Store) State() *peers.State { return s.fsm.state }

// Wait returns when this node's state has applied index.
func (s *Store) Wait(ctx context.Context, index uint64) error {
	for {
		applied, more := s.fsm.progress()
		if applied >= index {
			return nil
		}
		select {
		case <-more:
		case <-s.dead:
			return s.stopped()
		case <-ctx.Done():
			return fmt.Errorf("wait for index %d (now %d): %w", index, applied, ctx.Err())
		}
	}
}

// Snapshot forces a snapshot.
func (s *Store) Snapshot() error {
	err := s.raft.Load().Snapshot().Error()
	if errors.Is(err, raft.ErrNothingNewToSnapshot) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("take a snapshot: %w", err)
	}
	return nil
}

// Close stops Raft and closes the files.
func (s *Store) Close() error {
	s.die(ErrClosed, func() {})
	s.closing.Do(func() {
		err := s.halt().Error()
		<-s.led
		if s.files != nil {
			err = errors.Join(err, s.files.Close())
		}
		s.closed = err
	})
	return s.closed
}

// stopped is the error of a store that does not serve any more.
func (s *Store) stopped() error {
	if errors.Is(s.why, ErrClosed) {
		return ErrClosed
	}
	return fmt.Errorf("%w: %w", ErrClosed, s.why)
}
