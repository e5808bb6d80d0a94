package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"vpnd/peers"
)

// open opens a store in dir that the test closes at its end, and waits until it leads.
func open(t testing.TB, dir string) *Store {
	t.Helper()
	s, err := Open(t.Context(), Config{Dir: dir, Log: slog.New(slog.NewTextHandler(t.Output(), nil)), Fatal: func(err error) { t.Errorf("fatal: %v", err) }})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	if err := s.Ready(t.Context()); err != nil {
		t.Fatal(err)
	}
	return s
}

func initial() peers.Command {
	return command(peers.Init{
		Settings: peers.Settings{
			Cluster: peers.ID{1}, Created: time.Now().UTC(),
			PrivateKey: peers.Sealed("sealed"), PublicKey: peers.Key{9}, CAKey: peers.Sealed("sealed"), CACert: []byte("der"),
			Network:  []netip.Prefix{netip.MustParsePrefix("10.77.0.0/16"), netip.MustParsePrefix("fd77:1:2:3::/64")},
			Endpoint: "vpn.example.org:51820", URL: "https://vpn.example.org:8443", Session: 12 * time.Hour, Masquerade: true,
		},
		Policy: "{}",
	})
}

var serial struct {
	sync.Mutex
	n uint32
}

// newID returns an id that no other call in this process returns.
func newID() (id peers.ID) {
	serial.Lock()
	defer serial.Unlock()
	serial.n++
	copy(id[:], fmt.Sprintf("%016x", serial.n))
	return id
}

func command(b peers.Body) peers.Command {
	return peers.Command{Request: newID(), At: time.Now().UTC(), Actor: "test", Body: b}
}

func addUser(name string) peers.Command { return command(peers.UserAdd{ID: newID(), Name: name}) }

// propose commits a command that must not be refused.
func propose(t testing.TB, s *Store, c peers.Command) uint64 {
	t.Helper()
	i, r, err := s.Propose(t.Context(), c)
	if err = errors.Join(err, r.Err); err != nil {
		t.Fatalf("%T: %v", c.Body, err)
	}
	return i
}

func viewBytes(t testing.TB, s *Store) []byte {
	t.Helper()
	var b bytes.Buffer
	if _, err := s.State().View().WriteTo(&b); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestProposeAnswersWithIndexAndResult(t *testing.T) {
	s := open(t, t.TempDir())
	propose(t, s, initial())
	i, r, err := s.Propose(t.Context(), addUser("alice"))
	if err != nil || r.Err != nil || r.User == nil || r.User.Name != "alice" {
		t.Fatalf("Propose = %d, %+v, %v", i, r, err)
	}
	if got := s.State().View().Index(); got != i {
		t.Errorf("state is at %d when Propose answers %d", got, i)
	}
	if err := s.Wait(t.Context(), i); err != nil {
		t.Errorf("Wait: %v", err)
	}
	_, r, err = s.Propose(t.Context(), addUser("Alice"))
	if err != nil || !errors.Is(r.Err, peers.ErrExists) {
		t.Errorf("a second Alice: %v, %v; want a refusal and no error", r.Err, err)
	}
}

func TestProposeRepeatedIsTheSame(t *testing.T) {
	s := open(t, t.TempDir())
	propose(t, s, initial())
	c := addUser("alice")
	_, first, err := s.Propose(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	_, second, err := s.Propose(t.Context(), c)
	if err != nil || second.Err != nil || second.User == nil || second.User.ID != first.User.ID {
		t.Fatalf("repeated: %+v, %v; want %+v", second, err, first)
	}
}

func TestWaitForLaterIndex(t *testing.T) {
	s := open(t, t.TempDir())
	i := propose(t, s, initial())
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if err := s.Wait(ctx, i+1); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("Wait for what is not there: %v", err)
	}
	done := make(chan error, 1)
	go func() { done <- s.Wait(t.Context(), i+1) }()
	propose(t, s, addUser("alice"))
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

func TestSnapshotAndRestartGiveTheSameState(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	propose(t, s, initial())
	for i := range 200 {
		propose(t, s, addUser(fmt.Sprintf("user%d", i)))
	}
	if err := s.Snapshot(); err != nil {
		t.Fatal(err)
	}
	if err := s.Snapshot(); err != nil {
		t.Fatalf("a snapshot of nothing new: %v", err)
	}
	for i := range 20 {
		propose(t, s, addUser(fmt.Sprintf("later%d", i)))
	}
	want, id := viewBytes(t, s), s.NodeID()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	again := open(t, dir)
	if again.NodeID() != id {
		t.Errorf("node id %s became %s", id, again.NodeID())
	}
	if got := viewBytes(t, again); !bytes.Equal(got, want) {
		t.Errorf("%d bytes of state became %d", len(want), len(got))
	}
	if list, err := filepath.Glob(filepath.Join(dir, "raft", "snapshots", "*", "state.bin")); err != nil || len(list) == 0 {
		t.Errorf("no snapshot on disk: %v, %v", list, err)
	}
}

func TestUnknownKindStopsTheNode(t *testing.T) {
	dir := t.TempDir()
	fatal := make(chan error, 1)
	s, err := Open(t.Context(), Config{Dir: dir, Log: slog.New(slog.NewTextHandler(t.Output(), nil)), Fatal: func(err error) { fatal <- err }})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if err := s.Ready(t.Context()); err != nil {
		t.Fatal(err)
	}
	propose(t, s, initial())
	before := viewBytes(t, s)

	// A newer vpnd's command, as this one finds it in the log.
	if _, _, err := s.attempt(t.Context(), []byte("not a command")); err == nil {
		t.Error("a command that cannot be applied was acknowledged")
	}
	select {
	case err := <-fatal:
		if !strings.Contains(err.Error(), "Raft index") || strings.Contains(err.Error(), "\n") {
			t.Errorf("Fatal said %q", err)
		}
	case <-time.After(5 * time.Second):
		t.Fatal("Fatal was not called")
	}
	if s.Leader() {
		t.Error("still leader")
	}
	if _, _, err := s.Propose(t.Context(), addUser("alice")); !errors.Is(err, ErrNoLeader) || !errors.Is(err, ErrClosed) {
		t.Errorf("Propose afterwards: %v", err)
	}
	if err := s.Ready(t.Context()); !errors.Is(err, ErrClosed) {
		t.Errorf("Ready afterwards: %v", err)
	}
	if _, err := s.fsm.Snapshot(); err == nil {
		t.Error("a snapshot that lacks a committed command was taken")
	}
	if got := viewBytes(t, s); !bytes.Equal(got, before) {
		t.Error("the state changed after the command that could not be applied")
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}

	// The next start finds the command again, and stops again.
	s, err = Open(t.Context(), Config{Dir: dir, Log: slog.New(slog.NewTextHandler(t.Output(), nil)), Fatal: func(err error) { fatal <- err }})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if err := s.Ready(t.Context()); !errors.Is(err, ErrClosed) {
		t.Errorf("after a restart: Ready = %v", err)
	}
	<-fatal
}

func TestFullDiskStopsTheNode(t *testing.T) {
	fatal := make(chan error, 1)
	s, err := Open(t.Context(), Config{Dir: t.TempDir(), Fatal: func(err error) { fatal <- err }})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if err := s.Ready(t.Context()); err != nil {
		t.Fatal(err)
	}
	propose(t, s, initial())
	// A closed log refuses to write as a full disk does.
	s.files.(*folder).log.Close()
	if _, _, err := s.Propose(t.Context(), addUser("alice")); !errors.Is(err, ErrUnknown) {
		t.Errorf("Propose on a broken disk: %v", err)
	}
	if err := <-fatal; !strings.Contains(err.Error(), "write the log") {
		t.Errorf("Fatal said %v", err)
	}
}

func TestCloseEndsWaiters(t *testing.T) {
	s := open(t, t.TempDir())
	propose(t, s, initial())
	done := make(chan error, 1)
	go func() { done <- s.Wait(t.Context(), 1_000_000) }()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-done; !errors.Is(err, ErrClosed) {
		t.Errorf("Wait: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Errorf("closed twice: %v", err)
	}
}

func TestLogIsPrivate(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	open(t, dir)
	for _, p := range []string{dir, filepath.Join(dir, "raft")} {
		info, err := os.Stat(p)
		if err != nil {
			t.Fatal(err)
		}
		if m := info.Mode().Perm(); m != 0o700 {
			t.Errorf("%s has mode %o", filepath.Base(p), m)
		}
	}
}
