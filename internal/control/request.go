package control

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"net/netip"
	"sync/atomic"
	"time"

	"vpnd/acl/language"
	"vpnd/peers"
)

// Decider decides requests. A Leader does where it leads; what carries requests to the
// gateway that leads is another one. Its error is a refusal (*Error), which is data like an
// Answer, or says why nothing could be asked.
type Decider interface {
	Decide(context.Context, Request) (Answer, error)
}

// Request is what a leader must decide, as the first edge made it. It is plain data: what
// crosses from one gateway to another is this and an Answer, and nothing else.
type Request struct {
	ID     peers.ID   // made at the first edge; whoever sends it again sends the same
	Base   uint64     // the index that the first edge had applied then: see peers.Request
	Actor  string     // who asks, for the audit log; a device's owner is found by Source
	Source netip.Addr // through the tunnel: the device's address, for which WireGuard vouches
	Ask    Ask
}

// Ask is what is asked for: a struct beside the use case that it is of.
type Ask interface {
	decide(context.Context, *decision) (Answer, error)
}

// Answer is what a leader has decided. Each Ask fills what it says. The state of whoever
// asked has Index before the answer is used, so that ids are enough.
type Answer struct {
	Index     uint64 // the command's, or that of the state which the answer is of
	User      peers.ID
	Device    peers.ID
	Policy    uint64 // version; 0: the text has faults
	Count     int
	At        time.Time          // an invitation's end
	Enrolment *Enrolment         // holds a secret
	Problems  language.ErrorList // of a policy's text
	Repeated  bool               // the same answer as before
}

type callerKey struct{}

// caller is who asks, from where a request entered the cluster.
type caller struct {
	id    peers.ID
	actor string
	asked atomic.Uint32 // how many requests were made of it
}

// Arrived marks where a request enters the cluster. Its id is made here and never taken from
// a client, and actor is who asks. A person at a device or with an invitation is named by
// those: actor is empty.
func Arrived(ctx context.Context, actor string) context.Context {
	if actor == "" {
		actor = gatewayActor
	}
	return context.WithValue(ctx, callerKey{}, &caller{id: newID(), actor: actor})
}

// gatewayActor asks for what nobody has asked for.
const gatewayActor = "gateway"

// callerOf is who asks under ctx.
func callerOf(ctx context.Context) *caller {
	if c, ok := ctx.Value(callerKey{}).(*caller); ok {
		return c
	}
	return &caller{id: newID(), actor: gatewayActor}
}

// derive makes the n-th id of what belongs to the one of id.
func derive(of peers.ID, n uint32) (id peers.ID) {
	sum := sha256.Sum256(binary.BigEndian.AppendUint32(append([]byte(nil), of[:]...), n))
	copy(id[:], sum[:])
	return id
}

// ask has something decided, and returns when this node's state knows of it.
func (s *Service) ask(ctx context.Context, what Ask) (Answer, error) {
	return s.askFrom(ctx, netip.Addr{}, what)
}

// askFrom asks for the device at a tunnel address.
func (s *Service) askFrom(ctx context.Context, source netip.Addr, what Ask) (Answer, error) {
	c := callerOf(ctx)
	made := s.View().Request(derive(c.id, c.asked.Add(1)))
	a, err := s.decider.Decide(ctx, Request{ID: made.ID, Base: made.Base, Actor: c.actor, Source: source, Ask: what})
	if err != nil {
		return Answer{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, gatewayWait)
	defer cancel()
	if err := s.store.Wait(ctx, a.Index); err != nil {
		return Answer{}, behindError(err)
	}
	return a, nil
}

// behindError is the answer when what was decided elsewhere has not come here.
func behindError(err error) *Error {
	return Refuse("not_heard").because(err)
}
