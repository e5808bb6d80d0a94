package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// Empty files take nothing of the quota; their number is bounded all the same.
func TestNumberOfFilesIsBounded(t *testing.T) {
	d, err := openDrop(t.TempDir(), 100, 1000)
	if err != nil {
		t.Fatal(err)
	}
	for i := range maxFiles - 1 {
		d.files[fmt.Sprint(i)] = meta{ID: fmt.Sprint(i)}
	}
	last, err := d.put("last", "alice", 0, strings.NewReader(""), time.Now())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := d.put("more", "alice", 0, strings.NewReader(""), time.Now()); !errors.Is(err, errFull) {
		t.Errorf("one more than %d files: %v", maxFiles, err)
	}
	if err := d.remove(last.ID, "alice"); err != nil {
		t.Fatal(err)
	}
	if _, err := d.put("more", "alice", 0, strings.NewReader(""), time.Now()); err != nil {
		t.Errorf("after one was deleted: %v", err)
	}
}

// A file system that was just mounted for the files is open to all: while it is empty it is
// closed, and not relied on when somebody has put something there.
func TestEmptyFolderIsClosed(t *testing.T) {
	for _, empty := range []bool{true, false} {
		dir := t.TempDir()
		if !empty {
			if err := os.Mkdir(filepath.Join(dir, "files"), 0o700); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.Chmod(dir, 0o777|os.ModeSticky); err != nil {
			t.Fatal(err)
		}
		_, err := openDrop(dir, 10, 10)
		info, statErr := os.Stat(dir)
		if statErr != nil {
			t.Fatal(statErr)
		}
		if closed := info.Mode().Perm() == 0o700; (err == nil) != empty || closed != empty {
			t.Errorf("empty %t: mode %v, %v", empty, info.Mode(), err)
		}
	}
}
