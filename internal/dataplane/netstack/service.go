package netstack

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"slices"
	"strings"
	"syscall"

	"vpnd/internal/dataplane"
	"vpnd/internal/dataplane/relay"
)

// byAddress finds services by their service addresses.
func byAddress(list []dataplane.Service) map[netip.Addr]*dataplane.Service {
	services := make(map[netip.Addr]*dataplane.Service, 2*len(list))
	for _, s := range list {
		for _, a := range s.Addrs {
			services[a.Unmap()] = &s
		}
	}
	return services
}

// withdraw takes away what next has not, and tells whether that was anything. What next has
// new waits for the policy that speaks of it: an address that becomes another resource's must not
// lead there by a grant of the former. A flow that is open stays with the target that it has.
func (p *Plane) withdraw(next map[netip.Addr]*dataplane.Service) (gone bool) {
	kept := make(map[netip.Addr]*dataplane.Service, len(next))
	for a, old := range *p.services.Load() {
		if s := next[a]; s != nil && s.Name == old.Name {
			kept[a] = s
			gone = gone || !slices.Equal(old.Ports, s.Ports)
		} else {
			gone = true
		}
	}
	p.services.Store(&kept)
	return gone
}

// service is the published resource at a service address; nil if there is none.
func (p *Plane) service(a netip.Addr) *dataplane.Service { return (*p.services.Load())[a] }

// called is the service that f has called; nil: it is not there any more, or has no such port.
func (p *Plane) called(f *flow) *dataplane.Service {
	s := p.service(f.key.dst.Addr())
	if s == nil || s.Name != f.service {
		return nil
	}
	for _, x := range s.Ports {
		if x.Proto == f.key.proto && x.First <= f.key.dst.Port() && f.key.dst.Port() <= x.Last {
			return s
		}
	}
	return nil
}

// callerOf is who began f.
func callerOf(f *flow) relay.Caller {
	c := relay.Caller{Client: f.key.src, Service: f.key.dst}
	c.User, c.Device, _ = strings.Cut(*f.src.name.Load(), "/")
	if i := slices.IndexFunc(f.src.addrs, netip.Addr.Is4); i >= 0 {
		c.Addr4 = f.src.addrs[i]
	}
	return c
}

// newDialer calls targets as this plane may.
func (p *Plane) newDialer() relay.Dialer {
	return relay.Dialer{
		Local:  p.cfg.LocalTarget,
		Own:    func(_ string, to netip.AddrPort) bool { return p.ownListener(to) != nil },
		Here:   func(a netip.Addr) bool { return isLocal(a) || innermost(a).IsLoopback() },
		Tunnel: func(a netip.Addr) bool { return within(p.near.Load().Network, innermost(a)) },
		// The gateway's tunnel address is on no interface here: another one of the host's serves.
		Gateway: hostAddr,
	}
}

// hostAddr is an address of this host that is not the loopback interface's, of the family of to;
// invalid if there is none.
func hostAddr(to netip.Addr) netip.Addr {
	addrs, _ := net.InterfaceAddrs()
	for _, i := range addrs {
		n, ok := i.(*net.IPNet)
		if !ok {
			continue
		}
		if a, ok := netip.AddrFromSlice(n.IP); ok && a.Unmap().Is4() == to.Is4() && !a.IsLoopback() && !a.IsLinkLocalUnicast() {
			return a.Unmap()
		}
	}
	return netip.Addr{}
}

// dialService opens the host's side of a flow to a published resource.
func (p *Plane) dialService(ctx context.Context, network string, f *flow) (halfCloser, error) {
	s := p.called(f)
	if s == nil {
		return nil, relay.ErrUnknown
	}
	conn, err := p.dialer.Dial(ctx, network, s, callerOf(f))
	p.complain(s, err)
	if err != nil {
		return nil, err
	}
	if u, ok := conn.(*net.UDPConn); ok {
		return udpSocket{u}, nil
	}
	h, ok := conn.(halfCloser)
	if !ok {
		conn.Close()
		return nil, errors.New("a stream that cannot end by halves")
	}
	return h, nil
}

// targetsOwn are errors that are a target's own affair.
var targetsOwn = []error{syscall.ECONNREFUSED, syscall.ECONNRESET, syscall.EHOSTUNREACH, syscall.ENETUNREACH, syscall.ETIMEDOUT,
	context.Canceled, context.DeadlineExceeded}

// complain says what keeps a service's target from being called, once until it can be; not what
// is the target's own affair: whoever may call could fill the log by trying ports.
func (p *Plane) complain(s *dataplane.Service, err error) {
	if err == nil {
		p.said.Delete(s.Name)
		return
	}
	for _, own := range targetsOwn {
		if errors.Is(err, own) {
			return
		}
	}
	if _, said := p.said.LoadOrStore(s.Name, true); !said {
		p.cfg.Log.Warn("a resource cannot be called", "what", s.Name, "why", err)
	}
}
