package main

import (
	"errors"
	"fmt"
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
