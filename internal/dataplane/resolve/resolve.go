// Package resolve follows names to their addresses: each is asked for again when its answer's
// time is over. What a name means is this gateway's own knowledge, and no fact of the state.
//
// An answer that is not one (the resolver fails) leaves what was known before. An answer that
// leads where no target may be is refused, and what was known before goes.
package resolve

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"vpnd/internal/dataplane/local"
)

const (
	// An answer is good for at least Least and at most Most, whatever its time to live says.
	Least = 10 * time.Second
	Most  = 10 * time.Minute
	// retryMost is the most between two questions while there is no answer.
	retryMost = time.Minute
	// lookupTimeout bounds one question, atOnce how many are asked at a time.
	lookupTimeout = 15 * time.Second
	atOnce        = 16
	// maxAddrs is the most addresses that a name's answer is taken for.
	maxAddrs = 16
)

// ErrNoName is the answer that a name, or an address of it, does not exist.
var ErrNoName = errors.New("no such name")

// Answer is what a name means for a time.
type Answer struct {
	Addrs []netip.Addr
	TTL   time.Duration
}

// Options are a Resolver's.
type Options struct {
	// Lookup asks for a name. An error other than ErrNoName says that there was no answer.
	Lookup func(ctx context.Context, name string) (Answer, error)
	// Refuse says why an address may be no target; nil: local.Dialable.
	Refuse func(netip.Addr) error
	// Order puts the addresses of a name into the order to take them, after each answer with
	// several; nil: IPv4 first, by their numbers, so that rotation is no change.
	Order func(ctx context.Context, name string, addrs []netip.Addr) []netip.Addr
	// OnChange is called, outside of any lock and for a name one call after the other, when its
	// addresses change, or whether and why there is something to say about it.
	OnChange func(name string, addrs []netip.Addr, err error)
}

// State is what is known of a name.
type State struct {
	Addrs []netip.Addr // to take in order; they may be older than Err
	Err   error        // of the last question: why it had no answer, or what of it was refused
	Asked time.Time    // the last question; zero: none has ended yet
	Next  time.Time    // the next one
}

// Resolver follows names. Its methods may be called concurrently.
type Resolver struct {
	opts  Options
	slots chan struct{}

	mu    sync.Mutex
	names map[string]*follower
	done  sync.WaitGroup
}

// follower follows one name.
type follower struct {
	name   string
	cancel context.CancelFunc
	again  chan struct{}

	mu    sync.Mutex
	state State
	fails int
}

// New makes a Resolver that follows nothing yet.
func New(o Options) *Resolver {
	if o.Refuse == nil {
		o.Refuse = func(a netip.Addr) error { return local.Dialable(a, nil) }
	}
	return &Resolver{opts: o, slots: make(chan struct{}, atOnce), names: make(map[string]*follower)}
}

// Set makes names those that are followed. What is known of others is forgotten.
func (r *Resolver) Set(names []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	wanted := make(map[string]bool, len(names))
	for _, n := range names {
		wanted[n] = true
		if r.names[n] != nil {
			continue
		}
		ctx, cancel := context.WithCancel(context.Background())
		f := &follower{name: n, cancel: cancel, again: make(chan struct{}, 1)}
		r.names[n] = f
		r.done.Go(func() { r.follow(ctx, f) })
	}
	for n, f := range r.names {
		if !wanted[n] {
			f.cancel()
			delete(r.names, n)
		}
	}
}

// Get is what is known of a name; false: it is not followed.
func (r *Resolver) Get(name string) (State, bool) {
	r.mu.Lock()
	f := r.names[name]
	r.mu.Unlock()
	if f == nil {
		return State{}, false
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.state, true
}

// Again asks for every name now, as when the network or the daemon's listeners are others.
func (r *Resolver) Again() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, f := range r.names {
		select {
		case f.again <- struct{}{}:
		default:
		}
	}
}

// Close ends all questions; OnChange is not called after it.
func (r *Resolver) Close() error {
	r.Set(nil)
	r.done.Wait()
	return nil
}

func (r *Resolver) follow(ctx context.Context, f *follower) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-f.again:
		case <-timer.C:
		}
		select {
		case <-ctx.Done():
			return
		case r.slots <- struct{}{}:
		}
		addrs, ttl, err := r.ask(ctx, f.name)
		<-r.slots
		if ctx.Err() != nil {
			return
		}
		timer.Reset(r.learn(f, addrs, ttl, err))
	}
}

// errNoAnswer marks what leaves the last answer as it is.
type errNoAnswer struct{ error }

func (e errNoAnswer) Unwrap() error { return e.error }

// ask asks for a name and judges the answer. Addresses and an error are both there where some
// of an answer was refused.
func (r *Resolver) ask(ctx context.Context, name string) ([]netip.Addr, time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, lookupTimeout)
	defer cancel()
	answer, err := r.opts.Lookup(ctx, name)
	switch {
	case errors.Is(err, ErrNoName):
		return nil, answer.TTL, fmt.Errorf("%s: %w", name, err)
	case err != nil:
		return nil, 0, errNoAnswer{fmt.Errorf("%s: %w", name, err)}
	}
	var addrs []netip.Addr
	var refused []error
	for _, a := range answer.Addrs {
		a = a.Unmap()
		if err := r.opts.Refuse(a); err != nil {
			refused = append(refused, fmt.Errorf("%s leads to an address that no target has: %w", name, err))
			continue
		}
		addrs = append(addrs, a)
	}
	slices.SortFunc(addrs, netip.Addr.Compare) // IPv4 before IPv6
	addrs = slices.Compact(addrs)
	slices.SortFunc(refused, func(a, b error) int { return strings.Compare(a.Error(), b.Error()) })
	addrs = addrs[:min(len(addrs), maxAddrs)]
	if len(addrs) == 0 && len(refused) == 0 {
		return nil, answer.TTL, fmt.Errorf("%s: %w", name, ErrNoName)
	}
	if r.opts.Order != nil && len(addrs) > 1 {
		addrs = r.opts.Order(ctx, name, addrs)
	}
	return addrs, answer.TTL, errors.Join(refused...)
}

// learn takes in the outcome of a question, and says when to ask again.
func (r *Resolver) learn(f *follower, addrs []netip.Addr, ttl time.Duration, err error) time.Duration {
	f.mu.Lock()
	before := f.state
	wait := min(max(ttl, Least), Most)
	var none errNoAnswer
	if errors.As(err, &none) {
		err = none.error
		addrs = before.Addrs
		wait = min(Least<<min(f.fails, 10), retryMost)
		f.fails++
	} else {
		f.fails = 0
	}
	now := time.Now()
	f.state = State{Addrs: addrs, Err: err, Asked: now, Next: now.Add(wait)}
	f.mu.Unlock()
	if r.opts.OnChange != nil && (before.Asked.IsZero() || !slices.Equal(before.Addrs, addrs) || text(before.Err) != text(err)) {
		r.opts.OnChange(f.name, addrs, err)
	}
	return wait
}

func text(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}
