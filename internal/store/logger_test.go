package store

import (
	"bytes"
	"strings"
	"testing"

	"github.com/hashicorp/go-hclog"

	"vpnd/internal/logs"
)

// What the libraries warn about becomes an event of our log with its fields, not a line in
// their format.
func TestLogger(t *testing.T) {
	var b bytes.Buffer
	l := newLogger(logs.New(&b, logs.Options{Format: "logfmt"}).With("part", "store"))
	l.Info("chatter")
	l.Warn("heartbeat timeout reached, starting election", "last-leader-addr", "x")
	l.Named("wal").With("dir", "/d").Error("cannot write", "error", "no space", "level", 3, "level", 4, "took", hclog.Fmt("%d ms", 7))
	_, got, _ := strings.Cut(b.String(), " ") // the time
	const want = `level=WARN msg="cannot write" part=store what=raft.wal dir=/d why="no space" raft_level=3 raft_raft_level=4 took="7 ms"` + "\n"
	if got != want {
		t.Errorf("%q, want %q", got, want)
	}
}
