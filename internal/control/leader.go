package control

import (
	"context"
	"log/slog"
	"net/netip"
	"sync/atomic"
	"time"

	"vpnd/peers"
)

// node is what both parts of control stand on.
type node struct {
	store   Store
	sealer  *Sealer
	clock   func() time.Time
	log     *slog.Logger
	version string // of this vpnd
}

func newNode(c Config) node {
	n := node{store: c.Store, sealer: c.Sealer, clock: c.Now, log: c.Log, version: c.Version}
	if n.clock == nil {
		n.clock = time.Now
	}
	if n.log == nil {
		n.log = slog.New(slog.DiscardHandler)
	}
	return n
}

// now is the wall clock in UTC without its monotonic part: commands carry it.
func (n *node) now() time.Time { return n.clock().UTC().Round(0) }

// View is the state as this node has it, for what an edge lists and shows.
func (n *node) View() *peers.View { return n.store.State().View() }

// Time is the instant that says what in a view has ended: time never runs backwards inside
// State, so what has ended by its time has ended whatever the wall clock says.
func (n *node) Time(v *peers.View) time.Time { return later(n.now(), v.Time()) }

// Leader is the part of control that decides, on the node that leads. It checks codes,
// seals and proposes; it knows no data plane and waits for none.
type Leader struct {
	node
	factor factor

	users keyedMutex[peers.ID] // held while a code of that user is being checked
	tried atomic.Int64         // codes that were compared with a secret
	begun beginLimit           // enrolments begun in another browser than before
}

// NewLeader returns a Leader, which needs Store and Sealer.
func NewLeader(c Config) *Leader { return &Leader{node: newNode(c), factor: totpFactor{}} }

// Decide decides a request if this node leads. Otherwise nothing was changed, and no code
// was used.
func (l *Leader) Decide(ctx context.Context, r Request) (Answer, error) {
	if !l.store.Leader() {
		return Answer{}, Refuse("no_leader")
	}
	// What a newer form of the state makes possible is not to be missed by what follows.
	if err := l.upgrade(ctx); err != nil {
		l.log.Warn("the state's level could not be raised", "what", "state.upgrade", "why", cause(err))
	}
	return r.Ask.decide(ctx, &decision{Leader: l, id: r.ID, base: r.Base, actor: r.Actor, source: r.Source})
}

// decision is a request being decided.
type decision struct {
	*Leader
	id     peers.ID
	base   uint64
	actor  string
	source netip.Addr

	commands uint32 // how many were proposed
}

// propose commits a command and returns its index and result; a refusal is an *Error.
func (d *decision) propose(ctx context.Context, body peers.Body) (uint64, peers.Result, error) {
	cmd := peers.Command{Request: d.commandID(), Base: d.base, At: d.now(), Actor: d.actor, Body: body}
	return proposeTo(ctx, d.store, cmd)
}

// commit proposes what follows from a code that was evaluated. The caller going away
// must not keep a wrong code from being counted or a right one from being spent.
func (d *decision) commit(ctx context.Context, body peers.Body) (uint64, peers.Result, error) {
	return d.propose(context.WithoutCancel(ctx), body)
}

// commandID derives the id of the next command from the request's: a request that is
// decided again repeats its commands, which State answers as the first time.
func (d *decision) commandID() peers.ID {
	d.commands++
	return derive(d.id, d.commands)
}
