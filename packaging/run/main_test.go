package main

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

func owner(t *testing.T, dir string) int {
	info, err := os.Stat(dir)
	if err != nil {
		t.Fatal(err)
	}
	return int(info.Sys().(*syscall.Stat_t).Uid)
}

// As root, a socket in /run or /tmp must not make that folder nobody's.
func TestGiveFolderKeepsWhatIsOthers(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "theirs"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := giveFolder(dir, nobody); err == nil {
		t.Error("a folder with somebody's things in it was given away")
	}
	if uid := owner(t, dir); uid != os.Getuid() {
		t.Errorf("the folder is uid %d's now", uid)
	}
	if err := giveFolder(dir, os.Getuid()); err != nil {
		t.Errorf("one's own folder: %v", err)
	}
	made := filepath.Join(dir, "a", "b")
	if err := giveFolder(made, os.Getuid()); err != nil || owner(t, made) != os.Getuid() {
		t.Errorf("a new folder: %v", err)
	}
}
