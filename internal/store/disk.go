package store

import (
	"errors"
	"fmt"
	"io"
	"runtime"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
	wal "github.com/hashicorp/raft-wal"
	"github.com/hashicorp/raft-wal/metadb"
)

// diskLog is what Raft needs of a log on disk.
type diskLog interface {
	raft.LogStore
	raft.StableStore
	io.Closer
}

// openLog is the one place that chooses the log: raft-wal, whose fsync is worth two to
// three times as many commands a second as bolt's. The files of dir are its alone.
func openLog(dir string, logger hclog.Logger) (_ diskLog, err error) {
	const segment = 16 << 20 // bytes; a file is allocated whole
	meta := &metadb.BoltMetaDB{}
	defer func() { // bbolt, which keeps raft-wal's list of segments, panics on some damage
		if p := recover(); p != nil {
			err = fmt.Errorf("%v", p)
		}
		if err != nil {
			meta.Close()
		}
	}()
	l, err := wal.Open(dir, wal.WithLogger(logger), wal.WithSegmentSize(segment), wal.WithMetaStore(meta))
	if err != nil {
		return nil, err
	}
	return &walLog{l, meta}, nil
}

// walLog closes what raft-wal v0.4.0 leaves open, and with it locked until the process
// ends: its list of segments.
type walLog struct {
	*wal.WAL
	meta *metadb.BoltMetaDB
}

func (l *walLog) Close() error { return errors.Join(l.WAL.Close(), l.meta.Close()) }

// failingLog stops the node when its disk does: Raft itself would only step down, and be
// leader again a moment later.
type failingLog struct {
	raft.LogStore
	fail  func(error)
	wrote func(time.Duration) // told how long a write took, with its fsync; nil: nobody wants to know
}

func (l failingLog) StoreLog(e *raft.Log) error { return l.StoreLogs([]*raft.Log{e}) }

func (l failingLog) StoreLogs(e []*raft.Log) error {
	begin := time.Now()
	err := l.LogStore.StoreLogs(e)
	if err == nil && l.wrote != nil {
		l.wrote(time.Since(begin))
	}
	if err != nil {
		l.fail(fmt.Errorf("write the log: %w; free or replace the disk, then start vpnd again", err))
	}
	return err
}

// IsMonotonic passes on that raft-wal takes no gap: Raft then deletes the old log before
// it goes on after a snapshot from the leader.
func (l failingLog) IsMonotonic() bool {
	m, ok := l.LogStore.(raft.MonotonicLogStore)
	return ok && m.IsMonotonic()
}

// failingStable does the same for term and vote. Raft panics when it cannot write its
// term; here its goroutine ends instead, since the store is being stopped in good order.
type failingStable struct {
	raft.StableStore
	fail func(error)
}

func (s failingStable) Set(key, val []byte) error {
	return s.check(s.StableStore.Set(key, val))
}

func (s failingStable) SetUint64(key []byte, val uint64) error {
	return s.check(s.StableStore.SetUint64(key, val))
}

func (s failingStable) check(err error) error {
	if err != nil {
		s.fail(fmt.Errorf("write Raft's term or vote: %w; free or replace the disk, then start vpnd again", err))
		runtime.Goexit()
	}
	return nil
}
