package controltest

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"

	"vpnd/acl/rules"
	"vpnd/internal/dataplane"
)

// Gateway holds everything at once, unless it is told to fail. Change it by Set.
type Gateway struct {
	mu      sync.Mutex
	Waited  []uint64
	Fail    error
	RuleSet *rules.Ruleset
	Passes  func(dataplane.Flow) (bool, error)
	Plane   string
	Peers   map[dataplane.Key]dataplane.PeerStats
}

// Set changes it.
func (g *Gateway) Set(change func(*Gateway)) {
	g.mu.Lock()
	defer g.mu.Unlock()
	change(g)
}

// Wait holds the index.
func (g *Gateway) Wait(_ context.Context, index uint64) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.Waited = append(g.Waited, index)
	return g.Fail
}

// Applied is the index that was waited for last.
func (g *Gateway) Applied() uint64 {
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(g.Waited) == 0 {
		return 0
	}
	return g.Waited[len(g.Waited)-1]
}

// Rules returns RuleSet.
func (g *Gateway) Rules() *rules.Ruleset {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.RuleSet
}

// Stats returns Peers.
func (g *Gateway) Stats(context.Context, ...dataplane.Key) (dataplane.Stats, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return dataplane.Stats{Plane: cmp.Or(g.Plane, "fake"), Detail: "a plane of a test", Peers: g.Peers}, g.Fail
}

// Permits asks Passes.
func (g *Gateway) Permits(_ context.Context, f dataplane.Flow) (bool, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.Passes == nil {
		return false, errors.New("the plane was not asked before")
	}
	return g.Passes(f)
}

// Log is a log that may be written to by many.
type Log struct {
	mu sync.Mutex
	b  bytes.Buffer
}

// Logger is a log that writes here.
func (s *Log) Logger() *slog.Logger {
	return slog.New(slog.NewTextHandler(s, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

// Write implements io.Writer.
func (s *Log) Write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(b)
}

// Logf writes a line.
func (s *Log) Logf(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	fmt.Fprintf(&s.b, format+"\n", args...)
}

// String is all that was written.
func (s *Log) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}
