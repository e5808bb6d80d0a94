package store

import (
	"fmt"
	"slices"
	"testing"
)

// What the libraries warn about becomes a line of our log, without their format.
func TestLogger(t *testing.T) {
	var got []string
	l := newLogger(func(format string, args ...any) { got = append(got, fmt.Sprintf(format, args...)) })
	l.Info("chatter")
	l.Warn("heartbeat timeout reached, starting election", "last-leader-addr", "x")
	l.Named("wal").With("dir", "/d").Error("cannot write", "error", "no space")
	if want := []string{"raft.wal: cannot write, dir: /d, error: no space"}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}
