// Package control is where a request becomes a command: it authenticates, authorises,
// checks codes, seals and proposes. The edges (internal/api and portal) only decode, call
// it, and encode. It never changes the data plane.
//
// It has two parts and a seam between them. Service is called by the edges of every node;
// what must be decided it hands to a Decider as a Request, which is plain data. Leader
// decides, on the node that leads.
package control

import (
	"context"
	"crypto/rand"
	"log/slog"
	"net/netip"
	"sync/atomic"
	"time"

	"vpnd/acl/rules"
	"vpnd/internal/dataplane"
	"vpnd/peers"
)

// Store is what control needs of internal/store.
type Store interface {
	NodeID() string
	State() *peers.State
	Wait(ctx context.Context, index uint64) error // until State has it
	Propose(context.Context, peers.Command) (uint64, peers.Result, error)
	Leader() bool
}

// Gateway is what control needs of internal/reconcile and the plane: to answer
// "open" only when it is open and "revoked" only when it is closed, and to ask what it
// enforces. What it holds was told to it by the state: control never changes it.
type Gateway interface {
	Wait(ctx context.Context, index uint64) error
	Applied() uint64
	Rules() *rules.Ruleset
	Stats(ctx context.Context, keys ...dataplane.Key) (dataplane.Stats, error)
	Permits(ctx context.Context, f dataplane.Flow) (bool, error)
}

// Config is what a Service needs.
type Config struct {
	Store   Store
	Gateway Gateway
	Sealer  *Sealer
	Decider Decider          // nil: a Leader of this node alone
	Now     func() time.Time // the wall clock
	Version string
	Log     *slog.Logger      // nil: nothing is logged
	Pinned  map[string]string // settings that flags of this gateway give, and by which
	// Attention is what else is wrong with this gateway, for its status; nil: nothing can be.
	Attention func() []string
	// Locals is what resources may name on this host; nil: nothing.
	Locals Locals
	// Targets are the addresses of the name of a resource's target, and why they are old or none.
	Targets func(name string) ([]netip.Addr, error)
}

// Service has the use cases, as an edge calls them. What a leader must decide it asks a
// Decider for; the rest it answers itself, from this node's state and plane, whoever leads:
// pages and lists, who has an address, whether the plane holds what was decided. Its methods
// may be called concurrently.
type Service struct {
	node
	gateway Gateway
	decider Decider
	started time.Time
	pinned  map[string]string

	vault     *Vault
	attention func() []string
	locals    Locals
	targets   func(name string) ([]netip.Addr, error)

	certs *certificates
	drift chan dataplane.Drift
	lost  lossCounter

	spelled atomic.Pointer[[]peers.Device] // see findSpellings
}

// New returns a Service.
func New(c Config) *Service {
	s := &Service{
		node: newNode(c), gateway: c.Gateway, decider: c.Decider, pinned: c.Pinned, attention: c.Attention, locals: c.Locals, targets: c.Targets,
		drift: make(chan dataplane.Drift, driftQueue),
	}
	if s.decider == nil {
		s.decider = NewLeader(c)
	}
	s.started = s.now()
	s.certs = newCertificates(s)
	s.vault = &Vault{&s.node, newID()}
	return s
}

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

func userDisabled(u *peers.User) *Error {
	return Refuse("user_disabled", u.Name)
}
