package store

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestFolderOfAnotherProcess(t *testing.T) {
	dir := t.TempDir()
	open(t, dir)
	_, err := Open(t.Context(), Config{Dir: dir})
	if !errors.Is(err, ErrInUse) || !strings.Contains(err.Error(), dir) {
		t.Fatalf("second Open: %v", err)
	}
}

func TestFolderOfAnotherNode(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	s.Close()
	_, err := Open(t.Context(), Config{Dir: dir, NodeID: strings.Repeat("ab", 16)})
	if !errors.Is(err, ErrOtherNode) || !strings.Contains(err.Error(), s.NodeID()) {
		t.Fatalf("Open: %v", err)
	}
	same, err := Open(t.Context(), Config{Dir: dir, NodeID: s.NodeID()})
	if err != nil {
		t.Fatalf("the right id: %v", err)
	}
	same.Close()
}

func TestFolderWithGivenNodeID(t *testing.T) {
	want := strings.Repeat("0f", 16)
	s, err := Open(t.Context(), Config{Dir: t.TempDir(), NodeID: want})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if s.NodeID() != want {
		t.Errorf("node id %s", s.NodeID())
	}
	for _, bad := range []string{"x", strings.Repeat("0F", 16), strings.Repeat("0f", 17)} {
		if s, err := Open(t.Context(), Config{Dir: t.TempDir(), NodeID: bad}); err == nil {
			s.Close()
			t.Errorf("node id %q was taken", bad)
		}
	}
}

// A first start that was broken off leaves raft.new; the next one begins anew.
func TestFolderAfterBrokenFirstStart(t *testing.T) {
	dir := t.TempDir()
	half := filepath.Join(dir, "raft.new")
	if err := os.Mkdir(half, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(half, "node-id"), []byte("half"), 0o600); err != nil {
		t.Fatal(err)
	}
	s := open(t, dir)
	propose(t, s, initial())
	if _, err := os.Stat(half); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("raft.new is still there: %v", err)
	}
}

// Every damage is an error of one line that names the file and what to do.
func TestFolderDamage(t *testing.T) {
	for name, c := range map[string]struct {
		damage func(t *testing.T, raft string)
		want   []string
	}{
		"no node id": {func(t *testing.T, raft string) {
			must(t, os.Remove(filepath.Join(raft, "node-id")))
		}, []string{"node-id", "restore"}},
		"node id is nonsense": {func(t *testing.T, raft string) {
			must(t, os.WriteFile(filepath.Join(raft, "node-id"), []byte("hello\n"), 0o600))
		}, []string{"node-id", "restore"}},
		"no log": {func(t *testing.T, raft string) {
			must(t, os.Remove(filepath.Join(raft, "wal-meta.db")))
			must(t, os.RemoveAll(filepath.Join(raft, "snapshots")))
		}, []string{"raft", "restore"}},
		"log is nonsense": {func(t *testing.T, raft string) {
			must(t, os.WriteFile(filepath.Join(raft, "wal-meta.db"), []byte(strings.Repeat("nonsense", 4096)), 0o600))
		}, []string{"open the log", "raft"}},
		"snapshots are nonsense and the log is gone": {func(t *testing.T, raft string) {
			list, err := filepath.Glob(filepath.Join(raft, "snapshots", "*", "state.bin"))
			must(t, err)
			if len(list) == 0 {
				t.Fatal("no snapshot to damage")
			}
			for _, p := range list {
				must(t, os.WriteFile(p, []byte("nonsense"), 0o600))
			}
		}, []string{"raft", "restore"}},
		"raft is a file": {func(t *testing.T, raft string) {
			must(t, os.RemoveAll(raft))
			must(t, os.WriteFile(raft, nil, 0o600))
		}, []string{"node id", "--data"}},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			s := open(t, dir)
			propose(t, s, initial())
			must(t, s.Snapshot())
			must(t, s.Close())
			c.damage(t, filepath.Join(dir, "raft"))
			s, err := Open(t.Context(), Config{Dir: dir})
			if err == nil {
				s.Close()
				t.Fatal("opened")
			}
			t.Log(err)
			if strings.Contains(err.Error(), "\n") {
				t.Errorf("more than a line: %q", err)
			}
			for _, w := range append(c.want, dir) {
				if !strings.Contains(err.Error(), w) {
					t.Errorf("error lacks %q: %v", w, err)
				}
			}
			// The lock is free again.
			if _, err := Open(t.Context(), Config{Dir: dir}); errors.Is(err, ErrInUse) {
				t.Errorf("a failed Open keeps the lock: %v", err)
			}
		})
	}
}

func TestFolderThatOthersMayWriteTo(t *testing.T) {
	dir := t.TempDir()
	must(t, os.Chmod(dir, 0o770))
	s, err := Open(t.Context(), Config{Dir: dir})
	if err == nil {
		s.Close()
		t.Fatal("opened")
	}
	if !strings.Contains(err.Error(), "chmod go-w") {
		t.Error(err)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
