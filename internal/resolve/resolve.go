// Package resolve keeps the addresses of names up to date: asked again when an answer's time
// is over, kept when the resolver fails, and refused where they would lead somewhere else than
// a name can be meant.
package resolve

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"time"
)

// Bounds of how long an answer is believed, whatever its own time says.
const (
	Shortest = 10 * time.Second
	Longest  = 10 * time.Minute
)

// lookupTimeout bounds one look-up.
const lookupTimeout = 10 * time.Second

// Answer is what a name stands for.
type Answer struct {
	Addrs []netip.Addr
	TTL   time.Duration // for how long it holds
}

// Resolver keeps the addresses of the names that it is told. Its methods may be called
// concurrently; the fields are set before the first.
type Resolver struct {
	// Lookup asks for a name; see System.
	Lookup func(ctx context.Context, name string) (Answer, error)
	// Refused says why a name must not stand for an address; nil: it may.
	Refused func(netip.Addr) error
	// Reaches tells whether an address accepts a connection now, of a name that has several;
	// those that do come first. If nil, nobody is asked.
	Reaches func(ctx context.Context, name string, a netip.Addr) bool
	// Changed is called, outside of any lock, when a name's addresses or trouble have changed.
	Changed func(name string)

	mu    sync.Mutex
	names map[string]*entry
}

// entry is a name that is kept.
type entry struct {
	stop    context.CancelFunc
	known   bool // asked once at least
	addrs   []netip.Addr
	trouble error
}

// Want makes these the names that are kept. New ones are asked for at once, and all again
// whenever their time is over, until they are not wanted any more or ctx ends.
func (r *Resolver) Want(ctx context.Context, names []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.names == nil {
		r.names = map[string]*entry{}
	}
	for name, e := range r.names {
		if !slices.Contains(names, name) {
			e.stop()
			delete(r.names, name)
		}
	}
	for _, name := range names {
		if r.names[name] != nil {
			continue
		}
		own, stop := context.WithCancel(ctx)
		e := &entry{stop: stop}
		r.names[name] = e
		go r.keep(own, name, e)
	}
}

// Addrs are the addresses of a name, those first that answer; trouble says why they are old,
// or none.
func (r *Resolver) Addrs(name string) (addrs []netip.Addr, trouble error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	e := r.names[name]
	switch {
	case e == nil:
		return nil, nil
	case !e.known:
		return nil, fmt.Errorf("%s is being looked up", name)
	}
	return slices.Clone(e.addrs), e.trouble
}

// keep asks for a name again and again.
func (r *Resolver) keep(ctx context.Context, name string, e *entry) {
	for {
		wait := r.ask(ctx, name, e)
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
	}
}

// ask asks once, and says when to ask again.
func (r *Resolver) ask(ctx context.Context, name string, e *entry) time.Duration {
	asking, cancel := context.WithTimeout(ctx, lookupTimeout)
	defer cancel()
	a, err := r.Lookup(asking, name)
	if ctx.Err() != nil {
		return 0
	}
	if err != nil {
		r.store(name, e, nil, fmt.Errorf("looking %s up: %w", name, err))
		return Shortest
	}
	var addrs []netip.Addr
	var refused []error
	for _, x := range a.Addrs {
		x = x.Unmap()
		if why := r.Refused(x); why != nil {
			refused = append(refused, fmt.Errorf("%s stands for %s, which %w", name, x, why))
			continue
		}
		addrs = append(addrs, x)
	}
	slices.SortFunc(addrs, netip.Addr.Compare)
	addrs = slices.Compact(addrs)
	if addrs == nil {
		addrs = []netip.Addr{}
	}
	if len(addrs) == 0 && len(refused) == 0 {
		refused = append(refused, fmt.Errorf("%s has no address", name))
	}
	r.store(name, e, r.order(asking, name, e, addrs), errors.Join(refused...))
	return min(max(a.TTL, Shortest), Longest)
}

// order puts those that answer first, the present one before others.
func (r *Resolver) order(ctx context.Context, name string, e *entry, addrs []netip.Addr) []netip.Addr {
	if len(addrs) < 2 || r.Reaches == nil {
		return addrs
	}
	r.mu.Lock()
	var present netip.Addr
	if len(e.addrs) > 0 {
		present = e.addrs[0]
	}
	r.mu.Unlock()
	answers := make([]bool, len(addrs))
	var wg sync.WaitGroup
	for i, a := range addrs {
		wg.Go(func() { answers[i] = r.Reaches(ctx, name, a) })
	}
	wg.Wait()
	rank := map[netip.Addr]int{}
	for i, a := range addrs {
		switch {
		case !answers[i]:
			rank[a] = 2
		case a != present:
			rank[a] = 1
		}
	}
	slices.SortStableFunc(addrs, func(a, b netip.Addr) int { return rank[a] - rank[b] })
	return addrs
}

// store keeps what was found out; nil addresses leave the last ones.
func (r *Resolver) store(name string, e *entry, addrs []netip.Addr, trouble error) {
	r.mu.Lock()
	same := e.known && (addrs == nil || slices.Equal(addrs, e.addrs)) && fmt.Sprint(trouble) == fmt.Sprint(e.trouble)
	e.known, e.trouble = true, trouble
	if addrs != nil {
		e.addrs = addrs
	}
	wanted := r.names[name] == e
	r.mu.Unlock()
	if !same && wanted && r.Changed != nil {
		r.Changed(name)
	}
}
