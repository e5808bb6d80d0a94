// Package control is where a request becomes a command: it authenticates, authorises,
// checks codes, seals and proposes. The edges (internal/api and portal) only decode, call
// it, and encode. It never changes the data plane.
package control

import (
	"context"
	"crypto/rand"
	"sync/atomic"
	"time"

	"vpnd/acl"
	"vpnd/internal/dataplane"
	"vpnd/peers"
)

// Store is what control needs of internal/store.
type Store interface {
	NodeID() string
	State() *peers.State
	Propose(context.Context, peers.Command) (uint64, peers.Result, error)
	Leader() bool
}

// Gateway is what control needs of internal/reconcile and the plane: to answer
// "open" only when it is open and "revoked" only when it is closed, and to ask what it
// enforces. What it holds was told to it by the state: control never changes it.
type Gateway interface {
	Wait(ctx context.Context, index uint64) error
	Applied() uint64
	Rules() *acl.Ruleset
	Stats(ctx context.Context, keys ...dataplane.Key) (dataplane.Stats, error)
	Permits(ctx context.Context, f dataplane.Flow) (bool, error)
}

// Config is what a Service needs.
type Config struct {
	Store   Store
	Gateway Gateway
	Sealer  *Sealer
	Now     func() time.Time // the wall clock
	Version string
	Logf    func(format string, args ...any)
}

// Service has the use cases. Its methods may be called concurrently.
type Service struct {
	store   Store
	gateway Gateway
	sealer  *Sealer
	clock   func() time.Time
	version string
	logf    func(format string, args ...any)
	started time.Time

	users keyedMutex[peers.ID] // held while a code of that user is being checked
	tried atomic.Int64         // codes that were compared with a secret
	begun beginLimit           // enrolments begun in another browser than before
	certs *certificates
	drift chan dataplane.Drift
	lost  lossCounter
}

// New returns a Service.
func New(c Config) *Service {
	s := &Service{
		store: c.Store, gateway: c.Gateway, sealer: c.Sealer, clock: c.Now,
		version: c.Version, logf: c.Logf,
		drift: make(chan dataplane.Drift, driftQueue),
	}
	if s.clock == nil {
		s.clock = time.Now
	}
	if s.logf == nil {
		s.logf = func(string, ...any) {}
	}
	s.started = s.now()
	s.certs = newCertificates(s)
	return s
}

// now is the wall clock in UTC without its monotonic part: commands carry it.
func (s *Service) now() time.Time { return s.clock().UTC().Round(0) }

// newID makes an object's name.
func newID() (id peers.ID) {
	_, _ = rand.Read(id[:]) // never fails since Go 1.24: it ends the process instead
	return id
}

// later returns the later of two instants.
func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}

// stamp spells an instant for people.
func stamp(t time.Time) string { return t.UTC().Format("2 January 2006 15:04:05 MST") }

type actorKey struct{}

// WithActor names, for the audit log, who asks for what is done under ctx.
func WithActor(ctx context.Context, actor string) context.Context {
	return context.WithValue(ctx, actorKey{}, actor)
}

// Actor is who asks; "gateway" when it is the gateway itself.
func Actor(ctx context.Context) string {
	if a, ok := ctx.Value(actorKey{}).(string); ok && a != "" {
		return a
	}
	return "gateway"
}

func userDisabled(u *peers.User) *Error {
	return refuse(CodeDisabled,
		"The account %s is disabled. Ask an administrator to enable it.", u.Name)
}
