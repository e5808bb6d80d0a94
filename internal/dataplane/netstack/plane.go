package netstack

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"

	"gvisor.dev/gvisor/pkg/tcpip/stack"

	"vpnd/acl/rules"
	"vpnd/internal/dataplane"
	"vpnd/internal/dataplane/relay"
)

// Plane is the unprivileged data plane. Make it with New.
type Plane struct {
	cfg     dataplane.Config
	ctx     context.Context
	cancel  context.CancelFunc
	canPing pingSupport

	link   *link
	stack  *stack.Stack
	portal *portal
	flows  flows
	pieces pieces

	// Read by every packet. gen grows with each change, after the change: what was
	// judged at an older gen is judged again.
	devices devices
	rules   atomic.Pointer[rules.Ruleset]
	near    atomic.Pointer[dataplane.Gateway]
	// services are the published resources by their service addresses.
	services atomic.Pointer[map[netip.Addr]*dataplane.Service]
	dialer   relay.Dialer
	gen      atomic.Uint64

	mu       sync.Mutex // one Set, Update or Close at a time
	wg       *tunnel    // nil before the first Set
	byKey    map[dataplane.Key]*peer
	leaving  map[dataplane.Key]dataplane.Device // whose peers go last
	closed   bool
	recalled bool   // the peers of a former process were
	why      string // the tunnel has the MTU that it has

	readings readings
	said     sync.Map // services that cannot be called, by name: it was said
}

var _ dataplane.Plane = (*Plane)(nil)

// ErrClosed is returned by a Plane's methods after Close.
var ErrClosed = errors.New("netstack: the plane is closed")

// Bounds of the flows of all devices; one device may have an eighth of them.
const (
	// maxFlows is those that cost a socket of the host; Config.Flows may say less.
	maxFlows = 32768
	// maxPortalFlows is those to the portal, counted apart: nothing else keeps a device
	// from signing in.
	maxPortalFlows = 8192
	// maxApps is one device's connections to the app, which sees one caller: this process.
	maxApps = 256
)

// New makes a plane that carries nothing yet: its first Set opens the UDP port. ctx ends
// with the call; the plane lives until Close.
func New(_ context.Context, c dataplane.Config) (*Plane, error) {
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	c.Own = slices.Clone(c.Own)
	p := &Plane{cfg: c, canPing: probePing(), byKey: make(map[dataplane.Key]*peer), leaving: make(map[dataplane.Key]dataplane.Device)}
	p.ctx, p.cancel = context.WithCancel(context.Background())
	p.near.Store(&dataplane.Gateway{})
	p.services.Store(&map[netip.Addr]*dataplane.Service{})
	p.dialer = p.newDialer()
	p.gen.Store(1)
	p.devices.byAddr = make(map[netip.Addr]*peer)
	p.flows = flows{byKey: make(map[flowKey]*flow), byAddr: make(map[netip.Addr]map[*flow]struct{}), max: cmp.Or(c.Flows, maxFlows)}
	p.pieces = pieces{plane: p, seen: make(map[pieceKey]pieceFate)}
	p.portal = newPortal(func() net.Addr {
		a := &net.TCPAddr{Port: portalPort}
		if addrs := p.near.Load().Addrs; len(addrs) > 0 {
			a.IP = addrs[0].AsSlice()
		}
		return a
	})
	p.link = newLink(p)
	s, err := p.newStack()
	if err != nil {
		p.cancel()
		return nil, err
	}
	p.stack = s
	go p.janitor()
	return p, nil
}

// Set makes s the desired state.
func (p *Plane) Set(ctx context.Context, s dataplane.State) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return ErrClosed
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := p.setGatewayLocked(s.Gateway); err != nil {
		return err
	}
	if s.Rules == nil && p.rules.Swap(nil) != nil { // a Change could not say so
		p.settle(nil, true)
	}
	return p.applyLocked(p.differenceLocked(s))
}

// Update changes the desired state by c.
func (p *Plane) Update(ctx context.Context, c dataplane.Change) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.closed:
		return ErrClosed
	case p.wg == nil:
		return errors.New("netstack: Update before the first Set")
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	return p.applyLocked(c)
}

// setGatewayLocked brings the near end into line: first the port, which may be in use.
func (p *Plane) setGatewayLocked(g dataplane.Gateway) error {
	if p.wg == nil {
		t, err := openTunnel(g, tunDevice{p.link}, p.cfg.Log)
		if err != nil {
			return err
		}
		p.wg = t
		p.watchLine()
	} else if err := p.wg.set(g); err != nil {
		return err
	}
	g.PrivateKey = dataplane.Key{} // not needed again
	g.Addrs, g.Network, g.Routes = slices.Clone(g.Addrs), slices.Clone(g.Network), slices.Clone(g.Routes)
	p.near.Store(&g)
	p.fitLocked()
	return nil
}

// Close stops WireGuard and ends every flow.
func (p *Plane) Close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil
	}
	p.closed = true
	p.rules.Store(nil)
	for _, d := range p.byKey {
		p.forgetLocked(d)
	}
	p.settle(nil, true)
	p.portal.Close()
	p.cancel()
	if p.wg != nil {
		p.wg.close()
	} else {
		p.link.shut()
	}
	p.stack.Close()
	p.stack.RemoveNIC(nic)
	return nil
}
