package linux

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"

	"vpnd/acl/language"
	"vpnd/internal/dataplane"
	"vpnd/internal/dataplane/relay"
)

// Most flows to services are led to their targets by the packet filter alone. What it cannot
// translate it leads to two ports of the gateway's, where package relay carries it on. Who may
// call was judged before by the kernel, for each packet, and it cuts the flows as it cuts the
// portal's: their sockets are ended, and the relay ends what they led to.

// published is what the relay knows: where services lead to, and whose addresses are whose.
// Its methods may be called concurrently.
type published struct {
	mu       sync.RWMutex
	list     []dataplane.Service // that are or will be led to
	services map[netip.Addr]*dataplane.Service
	callers  map[netip.Addr]dataplane.Device
	here     map[netip.Addr]bool // this host's addresses
	gateway  dataplane.Gateway
	trouble  map[string]bool // the services that could not be called: logged once
}

func newPublished() *published {
	return &published{callers: map[netip.Addr]dataplane.Device{}, trouble: map[string]bool{}}
}

// A change is taken up in two steps: before the packet filter has it, no address leads to what
// it has not led to, and no address is taken for another device's: what still comes was
// permitted by the former rules.

// await takes up a whole state that the packet filter does not have yet.
func (p *published) await(s dataplane.State) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.gateway = s.Gateway
	p.gateway.PrivateKey = dataplane.Key{}
	names := make(map[netip.Addr]string, 2*len(s.Devices))
	for _, d := range s.Devices {
		for _, a := range d.Addrs {
			names[a] = d.Name
		}
	}
	maps.DeleteFunc(p.callers, func(a netip.Addr, d dataplane.Device) bool { return names[a] != d.Name })
	p.awaitLocked(s.Services)
}

// set takes up a whole state that the packet filter has.
func (p *published) set(s dataplane.State) {
	p.mu.Lock()
	defer p.mu.Unlock()
	clear(p.callers)
	p.putLocked(s.Devices)
	p.services = byAddr(s.Services)
}

// awaitChange takes up what a change says, whose closing part the packet filter has.
func (p *published) awaitChange(c dataplane.Change) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, d := range c.RemoveDevices {
		for _, a := range d.Addrs {
			delete(p.callers, a)
		}
	}
	p.putLocked(c.PutDevices)
	if c.Services != nil {
		p.awaitLocked(c.Services)
	}
}

// change takes up what a change says of services, which the packet filter has.
func (p *published) change(c dataplane.Change) {
	if c.Services == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.services = byAddr(c.Services)
}

func (p *published) putLocked(list []dataplane.Device) {
	for _, d := range list {
		for _, a := range d.Addrs {
			p.callers[a] = dataplane.Device{Name: d.Name, Addrs: d.Addrs}
		}
	}
}

func (p *published) awaitLocked(list []dataplane.Service) {
	next := byAddr(list)
	for a, s := range next {
		if was, known := p.services[a]; known && (was == nil || was.Name != s.Name) {
			next[a] = nil // also when this is tried again
		}
	}
	p.list, p.services = list, next
}

func byAddr(list []dataplane.Service) map[netip.Addr]*dataplane.Service {
	out := make(map[netip.Addr]*dataplane.Service, 2*len(list))
	for _, s := range list {
		for _, a := range s.Addrs {
			out[a] = &s
		}
	}
	return out
}

// any tells whether something is published.
func (p *published) any() bool {
	p.mu.RLock()
	defer p.mu.RUnlock()
	return len(p.list) > 0
}

// local tells whether an address is one of this host's.
func (p *published) local(a netip.Addr) bool {
	p.mu.RLock()
	defer p.mu.RUnlock()
	return a.IsLoopback() || p.here[a.Unmap()]
}

// look reads this host's addresses again, and tells whether they are others than before.
func (p *published) look() (changed bool, err error) {
	list, err := net.InterfaceAddrs()
	if err != nil {
		return false, fmt.Errorf("listing this host's addresses: %w", err)
	}
	here := make(map[netip.Addr]bool, len(list))
	for _, a := range list {
		if x, err := netip.ParsePrefix(a.String()); err == nil {
			here[x.Addr().Unmap().WithZone("")] = true
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	changed = len(here) != len(p.here)
	for a := range here {
		changed = changed || !p.here[a]
	}
	p.here = here
	return changed, nil
}

// targets are the hosts that services lead to, as networks behind the gateway.
func (p *published) targets() (out []netip.Prefix) {
	p.mu.RLock()
	defer p.mu.RUnlock()
	for _, s := range p.list {
		if s.Path != "" || s.ProxyV2 || len(s.Hosts) == 0 {
			continue
		}
		h := s.Hosts[0].Unmap()
		same := func(a netip.Addr) bool { return a.Is4() == h.Is4() }
		if slices.ContainsFunc(s.Addrs, same) && !h.IsLoopback() && !p.here[h] {
			out = append(out, netip.PrefixFrom(h, h.BitLen()))
		}
	}
	slices.SortFunc(out, netip.Prefix.Compare)
	return slices.Compact(out)
}

// errNobody says that a flow came to the relay that leads to nothing.
var errNobody = errors.New("no such service")

// called is the service that a client has called, and who that is.
func (p *published) called(proto uint8, client, service netip.AddrPort) (*dataplane.Service, relay.Caller, error) {
	p.mu.RLock()
	defer p.mu.RUnlock()
	s, d := p.services[service.Addr()], p.callers[client.Addr()]
	has := func(x language.Span) bool {
		return x.Proto == proto && x.First <= service.Port() && service.Port() <= x.Last
	}
	if s == nil || d.Name == "" || !slices.ContainsFunc(s.Ports, has) {
		return nil, relay.Caller{}, errNobody
	}
	c := relay.Caller{Client: client, Service: service}
	c.User, c.Device, _ = strings.Cut(d.Name, "/")
	for _, a := range d.Addrs {
		if a.Is4() {
			c.Addr4 = a
		}
	}
	return s, c, nil
}

// own tells whether an address and port is one of the daemon's own listeners.
func (p *Plane) own(_ string, to netip.AddrPort) bool {
	p.services.mu.RLock()
	listen, here := p.services.gateway.Listen, p.services.here[to.Addr()] || to.Addr().IsLoopback()
	p.services.mu.RUnlock()
	own := append([]netip.AddrPort{listen}, p.c.Own...)
	return slices.ContainsFunc(own, func(o netip.AddrPort) bool {
		return o.Port() == to.Port() && (o.Addr() == to.Addr() || here && (!o.Addr().IsValid() || o.Addr().IsUnspecified()))
	})
}

// dialer calls targets.
func (p *Plane) dialer() *relay.Dialer {
	return &relay.Dialer{
		Local: p.c.LocalTarget, Own: p.own, Here: p.services.local,
		Tunnel: func(a netip.Addr) bool {
			p.services.mu.RLock()
			defer p.services.mu.RUnlock()
			return slices.ContainsFunc(p.services.gateway.Network, func(n netip.Prefix) bool { return n.Contains(a) })
		},
		Gateway: func(to netip.Addr) netip.Addr {
			p.services.mu.RLock()
			defer p.services.mu.RUnlock()
			for _, a := range p.services.gateway.Addrs {
				if a.Is4() == to.Is4() {
					return a
				}
			}
			return netip.Addr{}
		},
	}
}

// open calls the target of a service for a client.
func (p *Plane) open(network string, proto uint8) func(ctx context.Context, client, service netip.AddrPort) (net.Conn, error) {
	d := p.dialer()
	return func(ctx context.Context, client, service netip.AddrPort) (net.Conn, error) {
		s, c, err := p.services.called(proto, client, service)
		if err != nil {
			return nil, err
		}
		conn, err := d.Dial(ctx, network, s, c)
		p.services.complain(s, err, p.c.Log.Warn)
		return conn, err
	}
}

// complain logs why a target cannot be called, once until it can.
func (p *published) complain(s *dataplane.Service, err error, log func(string, ...any)) {
	if errors.Is(err, context.Canceled) {
		return
	}
	p.mu.Lock()
	known := p.trouble[s.Name]
	if err == nil {
		delete(p.trouble, s.Name)
	} else {
		p.trouble[s.Name] = true
	}
	p.mu.Unlock()
	if err != nil && !known {
		log("a resource cannot be called", "resource", s.Name, "why", err)
	}
}
