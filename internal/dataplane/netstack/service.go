package netstack

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"slices"
	"strings"

	"vpnd/internal/dataplane"
	"vpnd/internal/dataplane/relay"
)

// publish makes these the services. A flow that is open stays with the target that it has.
func (p *Plane) publish(list []dataplane.Service) {
	services := make(map[netip.Addr]*dataplane.Service)
	for _, s := range list {
		for _, a := range s.Addrs {
			services[a.Unmap()] = &s
		}
	}
	p.services.Store(&services)
}

// service is the published resource at a service address; nil if there is none.
func (p *Plane) service(a netip.Addr) *dataplane.Service {
	services := p.services.Load()
	if services == nil {
		return nil
	}
	return (*services)[a]
}

// newDialer calls targets as this plane may.
func (p *Plane) newDialer() relay.Dialer {
	return relay.Dialer{
		Local:  p.cfg.LocalTarget,
		Own:    func(_ string, to netip.AddrPort) bool { return p.ownListener(to) != nil },
		Here:   isLocal,
		Tunnel: func(a netip.Addr) bool { return within(p.near.Load().Network, a) },
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
	s := p.service(f.key.dst.Addr())
	if s == nil {
		return nil, relay.ErrUnknown
	}
	c := relay.Caller{Client: f.key.src, Service: f.key.dst}
	c.User, c.Device, _ = strings.Cut(*f.src.name.Load(), "/")
	if i := slices.IndexFunc(f.src.addrs, netip.Addr.Is4); i >= 0 {
		c.Addr4 = f.src.addrs[i]
	}
	conn, err := p.dialer.Dial(ctx, network, s, c)
	if err != nil {
		p.complain(s, err)
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

// complain says once what keeps a service's target from being called, if that is for people to
// mend and not the target's own affair.
func (p *Plane) complain(s *dataplane.Service, err error) {
	var refused net.Error
	if errors.As(err, &refused) || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return
	}
	if _, said := p.said.LoadOrStore(s.Name+": "+err.Error(), true); !said {
		p.cfg.Log.Warn("a resource cannot be called", "what", s.Name, "why", err)
	}
}
