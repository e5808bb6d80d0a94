package reconcile

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"sync/atomic"
	"time"

	"vpnd/acl/language"
	"vpnd/acl/rules"
	"vpnd/internal/dataplane"
	"vpnd/internal/resolve"
)

// targets are where the resources of the policy lead. The state knows names alone: to find
// their addresses is each gateway's own affair.
type targets struct {
	resolver resolve.Resolver
	moved    chan struct{} // capacity 1: the addresses of some name have changed
	stale    bool          // the plane has not been told; Run's alone

	network atomic.Pointer[[]netip.Prefix]
	ports   atomic.Pointer[map[string]uint16] // a TCP port of each name
}

func (t *targets) open(c Config) {
	t.moved = make(chan struct{}, 1)
	t.network.Store(&[]netip.Prefix{})
	t.ports.Store(&map[string]uint16{})
	t.resolver = resolve.Resolver{Lookup: c.Lookup, Refused: t.refused, Reaches: t.reaches, Changed: func(name string) {
		if addrs, trouble := t.resolver.Addrs(name); trouble != nil && c.Log != nil {
			c.Log.Warn("the target of a resource", "what", name, "why", trouble, "addresses", addrs)
		}
		select {
		case t.moved <- struct{}{}:
		default:
		}
	}}
	if c.Lookup == nil {
		t.resolver.Lookup = resolve.System
	}
}

// services are the resources of the policy as the plane knows them; never nil.
func (t *targets) services(ctx context.Context, ruleset *rules.Ruleset) []dataplane.Service {
	p, o := ruleset.Policy(), ruleset.Options()
	network := slices.Clone(o.Network)
	t.network.Store(&network)
	list := make([]dataplane.Service, 0, len(p.Resources()))
	var names []string
	ports := map[string]uint16{}
	for _, name := range p.Resources() {
		r := p.Resource(name)
		s := dataplane.Service{Name: name, Addrs: o.Services[name], Ports: r.Ports, ToPort: r.ToPort, Path: r.To.Path, ProxyV2: r.ProxyV2, FromGateway: r.FromGateway}
		switch {
		case r.To.Addr.IsValid():
			s.Hosts = []netip.Addr{r.To.Addr}
		case r.To.Loopback():
			s.Hosts = []netip.Addr{netip.AddrFrom4([4]byte{127, 0, 0, 1})}
		case r.To.Name != "":
			names = append(names, r.To.Name)
			if i := slices.IndexFunc(r.Ports, func(s language.Span) bool { return s.Proto == language.ProtoTCP }); i >= 0 {
				ports[r.To.Name] = max(r.ToPort, 1)
				if r.ToPort == 0 {
					ports[r.To.Name] = r.Ports[i].First
				}
			}
			s.Hosts, _ = t.resolver.Addrs(r.To.Name)
		}
		list = append(list, s)
	}
	t.ports.Store(&ports)
	slices.Sort(names)
	names = slices.Compact(names)
	t.resolver.Want(ctx, names)
	return list
}

// refused says what a name must not stand for.
func (t *targets) refused(a netip.Addr) error {
	switch {
	case a.IsLoopback():
		return errors.New("is this host's own: publish localhost where that is meant")
	case !a.IsValid(), a.IsUnspecified(), a.IsLinkLocalUnicast(), a.IsMulticast(), a == netip.AddrFrom4([4]byte{255, 255, 255, 255}):
		return errors.New("is no host's address that a gateway can call")
	case slices.ContainsFunc(*t.network.Load(), func(p netip.Prefix) bool { return p.Contains(a) }):
		return errors.New("is in the tunnel")
	}
	return nil
}

// reaches tells whether a target's address accepts a connection.
func (t *targets) reaches(ctx context.Context, name string, a netip.Addr) bool {
	port := (*t.ports.Load())[name]
	if port == 0 {
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	c, err := (&net.Dialer{}).DialContext(ctx, "tcp", net.JoinHostPort(a.String(), strconv.Itoa(int(port))))
	if err != nil {
		return false
	}
	c.Close()
	return true
}

// Troubles are what is wrong with the targets of resources, in words.
func (r *Reconciler) Troubles() (list []string) {
	ruleset := r.Rules()
	if ruleset == nil {
		return nil
	}
	p := ruleset.Policy()
	for _, name := range p.Resources() {
		to := p.Resource(name).To
		if to.Name == "" || to.Loopback() {
			continue
		}
		addrs, trouble := r.targets.resolver.Addrs(to.Name)
		switch {
		case trouble == nil:
		case len(addrs) == 0:
			list = append(list, "the resource "+name+" leads nowhere: "+trouble.Error())
		default:
			list = append(list, "the resource "+name+" leads to where it led last, "+addrs[0].String()+": "+trouble.Error())
		}
	}
	return list
}

// Target are the addresses of the name of a resource's target, and why they are old or none.
func (r *Reconciler) Target(name string) ([]netip.Addr, error) { return r.targets.resolver.Addrs(name) }
