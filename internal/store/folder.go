package store

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
	"golang.org/x/sys/unix"

	"vpnd/internal/owner"
)

// The data folder:
//
//	DIR/lock            held with flock(2) while a process has the folder open
//	DIR/raft/node-id    whose state it is
//	DIR/raft/*.wal      the log
//	DIR/raft/*.db       the log's list of segments; Raft's term and vote
//	DIR/raft/snapshots  the newest two
//
// DIR/raft is made as DIR/raft.new and renamed when it is whole: whoever finds DIR/raft
// finds a node id and a bootstrapped log in it, or a damage.
const (
	lockFile   = "lock"
	raftDir    = "raft"
	nodeIDFile = "node-id"
	keep       = 2 // snapshots
)

var errDamaged = errors.New("damaged")

// folder is an open data folder.
type folder struct {
	dir       string
	id        string
	lock      *os.File
	log       diskLog
	snapshots raft.SnapshotStore
}

// openFolder locks dir and opens what is in it; a fresh one becomes node id's.
func openFolder(dir, id string, logger hclog.Logger) (_ *folder, err error) {
	if dir == "" {
		return nil, errors.New("no data folder given")
	}
	if id != "" && !validNodeID(id) {
		return nil, fmt.Errorf("node id %q: want 32 lower-case hex digits", id)
	}
	f := &folder{dir: dir}
	defer func() {
		if err != nil {
			f.Close()
		}
	}()
	if f.lock, err = lockDir(dir); err != nil {
		return nil, err
	}
	if err := owner.Self().CloseTree(dir, "the data folder"); err != nil {
		return nil, remedy(err)
	}
	path := filepath.Join(dir, raftDir)
	if _, err := os.Lstat(path); errors.Is(err, fs.ErrNotExist) {
		if err := makeFolder(dir, id, logger); err != nil {
			return nil, fmt.Errorf("make the state in %s: %w", dir, remedy(err))
		}
	}
	if f.id, err = readNodeID(filepath.Join(path, nodeIDFile)); err != nil {
		return nil, err
	}
	if id != "" && id != f.id {
		return nil, fmt.Errorf("%w: %s is of node %s, not %s: give it another folder", ErrOtherNode, dir, f.id, id)
	}
	if f.log, err = openLog(path, logger); err != nil {
		if with := remedy(err); with != err {
			return nil, fmt.Errorf("open the log in %s: %w", path, with)
		}
		return nil, fmt.Errorf("%w: open the log in %s: %w: restore a backup", errDamaged, path, err)
	}
	if f.snapshots, err = raft.NewFileSnapshotStoreWithLogger(path, keep, logger); err != nil {
		return nil, fmt.Errorf("open the snapshots in %s: %w", path, remedy(err))
	}
	return f, f.check()
}

// lockDir makes dir if it is missing, refuses one that others can write to, and locks it against other processes.
func lockDir(dir string) (*os.File, error) {
	if err := owner.Self().Folder(dir, "the data folder", 0o700); err != nil {
		return nil, remedy(err)
	}
	lock, err := os.OpenFile(filepath.Join(dir, lockFile), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock the data folder: %w", remedy(err))
	}
	err = unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	switch {
	case errors.Is(err, unix.EWOULDBLOCK):
		err = fmt.Errorf("%w: another vpnd runs in %s: stop it, or give this one another folder", ErrInUse, dir)
	case err != nil:
		err = fmt.Errorf("lock %s: %w", lock.Name(), err)
	}
	if err != nil {
		lock.Close()
		return nil, err
	}
	return lock, nil
}

// makeFolder makes DIR/raft: an id and the log of a cluster of this one voter.
func makeFolder(dir, id string, logger hclog.Logger) error {
	if id == "" {
		var b [16]byte
		rand.Read(b[:])
		id = hex.EncodeToString(b[:])
	}
	fresh := filepath.Join(dir, raftDir+".new")
	if err := os.RemoveAll(fresh); err != nil { // of a first start that was broken off
		return err
	}
	if err := os.Mkdir(fresh, 0o700); err != nil {
		return err
	}
	if err := writeSynced(filepath.Join(fresh, nodeIDFile), id+"\n"); err != nil {
		return err
	}
	if err := bootstrap(fresh, id, logger); err != nil {
		return err
	}
	if err := syncDir(fresh); err != nil {
		return err
	}
	if err := os.Rename(fresh, filepath.Join(dir, raftDir)); err != nil {
		return err
	}
	return syncDir(dir)
}

func bootstrap(path, id string, logger hclog.Logger) error {
	l, err := openLog(path, logger)
	if err != nil {
		return err
	}
	c := raft.DefaultConfig()
	c.LocalID, c.Logger = raft.ServerID(id), logger
	err = raft.BootstrapCluster(c, l, l, raft.NewInmemSnapshotStore(), nil, voters(id))
	return errors.Join(err, l.Close())
}

// voters is the configuration of a cluster whose members' addresses are their ids.
func voters(ids ...string) raft.Configuration {
	var c raft.Configuration
	for _, id := range ids {
		c.Servers = append(c.Servers, raft.Server{ID: raft.ServerID(id), Address: raft.ServerAddress(id)})
	}
	return c
}

// check sees that log and snapshots join: a file of them that is missing must not turn
// into an older state.
func (f *folder) check() error {
	path := filepath.Join(f.dir, raftDir)
	first, err := f.log.FirstIndex()
	if err != nil {
		return fmt.Errorf("read the log in %s: %w", path, err)
	}
	list, err := f.snapshots.List()
	if err != nil {
		return fmt.Errorf("list the snapshots in %s: %w", path, remedy(err))
	}
	var newest uint64
	if len(list) > 0 {
		newest = list[0].Index
	}
	switch {
	case first == 0 && newest == 0:
		return fmt.Errorf("%w: %s holds neither log nor snapshot: restore a backup, or move the folder away to start anew", errDamaged, path)
	case first > newest+1:
		return fmt.Errorf("%w: %s has a snapshot up to index %d and a log from %d on; what is between is gone: restore a backup", errDamaged, path, newest, first)
	}
	return nil
}

// Close closes the files and gives the folder free.
func (f *folder) Close() error {
	var errs []error
	if f.log != nil {
		errs = append(errs, f.log.Close())
	}
	if f.lock != nil {
		errs = append(errs, f.lock.Close())
	}
	return errors.Join(errs...)
}

func readNodeID(path string) (string, error) {
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("%w: %s is missing beside existing state: restore it from a backup", errDamaged, path)
	}
	if err != nil {
		return "", fmt.Errorf("read the node id: %w", remedy(err))
	}
	id, ok := strings.CutSuffix(string(b), "\n")
	if !ok || !validNodeID(id) {
		return "", fmt.Errorf("%w: %s does not hold 32 hex digits and a newline: restore it from a backup", errDamaged, path)
	}
	return id, nil
}

func validNodeID(s string) bool {
	b, err := hex.DecodeString(s)
	return err == nil && len(b) == 16 && s == strings.ToLower(s)
}

// remedy adds what to do about an error of the file system.
func remedy(err error) error {
	switch {
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("%w: run vpnd as the user who owns it (this process has uid %d), or chown it", err, os.Geteuid())
	case errors.Is(err, unix.ENOSPC):
		return fmt.Errorf("%w: free some space", err)
	case errors.Is(err, unix.EROFS):
		return fmt.Errorf("%w: give a folder on a writable disk with --data", err)
	case errors.Is(err, unix.ENOTDIR):
		return fmt.Errorf("%w: a file is where a folder should be: give another folder with --data", err)
	}
	return err
}

func writeSynced(path, text string) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	return errors.Join(err, f.Sync(), f.Close())
}

func syncDir(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
