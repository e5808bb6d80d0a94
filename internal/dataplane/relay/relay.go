// Package relay carries what a kernel's NAT cannot: flows from a device to a service address
// whose target is on this host, is a unix socket, is of the other family, or is to be told who
// calls. It ends the device's flow and begins one of its own to the target.
//
// It judges no flow: a plane hands it those that the policy permits, and cuts them when they
// may no longer be. It does judge targets each time that it dials: what is on this host only
// where Options.Local says so, and never as anybody whom services there trust.
package relay

import (
	"cmp"
	"context"
	"errors"
	"net"
	"net/netip"
	"sync"
)

var (
	// ErrTooMany refuses a flow of a device that has too many others, or when all have.
	ErrTooMany = errors.New("too many flows")
	// ErrCut is what a flow ends with that was cut.
	ErrCut = errors.New("the flow was cut")
)

// Caller is who calls, and what was called.
type Caller struct {
	Client  netip.AddrPort // the device's tunnel address and port
	Service netip.AddrPort // the service address and port that it asked for
	// Tunnel is the device's tunnel address that stands for it on this host (local.Standin):
	// its IPv4 one where it has one, also when it calls by IPv6.
	Tunnel netip.Addr
	User   string
	Device string
}

// Target is where a service's flows go.
type Target struct {
	Addrs []netip.AddrPort // to try in order, but the one that answered last time first
	Path  string           // of a unix socket; "" otherwise
	// From are addresses of the gateway's own to call from what is on this host, by family.
	// Without one, an IPv4 target is called from the device's stand-in, and an IPv6 one is
	// refused: no address can stand for a device there.
	From []netip.Addr
	// ProxyV2 tells a TCP target who calls, by the PROXY protocol.
	ProxyV2 bool
}

// Options are a Relay's.
type Options struct {
	Flows     int // at once, TCP and UDP; 0: 16,384
	PerDevice int // of them one device's; 0: an eighth
	// Local tells whether an address and port on this host may be called; nil: none may.
	Local func(network string, to netip.AddrPort) error
	// Socket opens a unix socket of this host that may be called; nil: none may.
	Socket func(ctx context.Context, path string) (net.Conn, error)
	// Elsewhere tells whether what is not on this host may be called; nil: local.Dialable.
	Elsewhere func(to netip.AddrPort) error
	// Alive tells whether a flow may be that can be cut by now: what ended its permission
	// before it could is seen here. nil: it may.
	Alive func(Caller) bool

	dial dialFunc // for tests
}

// Relay carries flows. Its methods may be called concurrently.
type Relay struct {
	opts  Options
	pipes pipes
	// buffers are those of datagrams under way, *[largest]byte.
	buffers sync.Pool

	mu       sync.Mutex
	closed   bool
	flows    map[*Flow]struct{}
	byClient map[netip.Addr]map[*Flow]struct{}
	byDevice map[netip.Addr]int                // by Caller.device
	worked   map[netip.AddrPort]netip.AddrPort // by service, the target's address that answered
	sessions map[pair]*session
}

// New makes a Relay.
func New(o Options) *Relay {
	o.Flows = cmp.Or(o.Flows, 16384)
	o.PerDevice = cmp.Or(o.PerDevice, max(o.Flows/8, 16))
	if o.dial == nil {
		o.dial = dial
	}
	return &Relay{
		opts: o, flows: make(map[*Flow]struct{}), byClient: make(map[netip.Addr]map[*Flow]struct{}),
		byDevice: make(map[netip.Addr]int), worked: make(map[netip.AddrPort]netip.AddrPort),
		sessions: make(map[pair]*session),
	}
}

// device is what a device's flows are counted by.
func (c Caller) device() netip.Addr {
	if c.Tunnel.IsValid() {
		return c.Tunnel
	}
	return c.Client.Addr()
}

// Flow is one flow from its beginning on. Whoever has one ends it by Carry or Cut.
type Flow struct {
	relay  *Relay
	caller Caller

	mu   sync.Mutex
	dead bool
	ends []func() // end what belongs to the flow at once
	up   Stream   // TCP: the target's end
}

// Begin counts a flow and makes it one that can be cut.
func (r *Relay) Begin(c Caller) (*Flow, error) {
	f := &Flow{relay: r, caller: c}
	if err := r.add(f); err != nil {
		return nil, err
	}
	if r.opts.Alive != nil && !r.opts.Alive(c) {
		f.Cut()
		return nil, ErrCut
	}
	return f, nil
}

func (r *Relay) add(f *Flow) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	d, a := f.caller.device(), f.caller.Client.Addr()
	switch {
	case r.closed:
		return net.ErrClosed
	case len(r.flows) >= r.opts.Flows || r.byDevice[d] >= r.opts.PerDevice:
		return ErrTooMany
	}
	r.flows[f] = struct{}{}
	r.byDevice[d]++
	if r.byClient[a] == nil {
		r.byClient[a] = make(map[*Flow]struct{})
	}
	r.byClient[a][f] = struct{}{}
	return nil
}

func (r *Relay) remove(f *Flow) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, ok := r.flows[f]; !ok {
		return
	}
	delete(r.flows, f)
	d, a := f.caller.device(), f.caller.Client.Addr()
	if r.byDevice[d]--; r.byDevice[d] == 0 {
		delete(r.byDevice, d)
	}
	if delete(r.byClient[a], f); len(r.byClient[a]) == 0 {
		delete(r.byClient, a)
	}
}

// onCut registers what Cut must end; false means that the flow was cut already and nothing was
// registered.
func (f *Flow) onCut(end func()) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.dead {
		return false
	}
	f.ends = append(f.ends, end)
	return true
}

// Cut ends the flow at once: both ends of a TCP connection are reset.
func (f *Flow) Cut() {
	f.mu.Lock()
	f.dead = true
	ends := f.ends
	f.ends = nil
	for _, end := range ends { // under the lock: whoever comes second returns when it is done
		end()
	}
	f.mu.Unlock()
	f.relay.remove(f)
}

func (f *Flow) isCut() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.dead
}

// CutClients cuts the flows of the devices at addrs, and counts them.
func (r *Relay) CutClients(addrs ...netip.Addr) int {
	var fs []*Flow
	r.mu.Lock()
	for _, a := range addrs {
		for f := range r.byClient[a] {
			fs = append(fs, f)
		}
	}
	r.mu.Unlock()
	return cutAll(fs)
}

// Cut cuts the flows that match says, and counts them. It is called with the relay locked.
func (r *Relay) Cut(match func(Caller) bool) int {
	var fs []*Flow
	r.mu.Lock()
	for f := range r.flows {
		if match(f.caller) {
			fs = append(fs, f)
		}
	}
	r.mu.Unlock()
	return cutAll(fs)
}

func cutAll(fs []*Flow) int {
	for _, f := range fs {
		f.Cut()
	}
	return len(fs)
}

// Len is the number of flows.
func (r *Relay) Len() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.flows)
}

// Close cuts every flow and refuses new ones.
func (r *Relay) Close() error {
	r.mu.Lock()
	r.closed = true
	r.mu.Unlock()
	r.Cut(func(Caller) bool { return true })
	r.pipes.close()
	return nil
}
