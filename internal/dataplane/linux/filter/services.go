package filter

import (
	"encoding/binary"
	"net/netip"
	"slices"

	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"vpnd/acl/rules"
	"vpnd/internal/dataplane"
	"vpnd/internal/dataplane/linux/nft"
)

// A published resource has service addresses in the upper half of the tunnel's network. No
// interface has them: a flow to one is led to the target before its first packet is judged,
// and judged by the address that it asked for, so that a grant of a resource opens that and
// not its target as such. What the kernel cannot translate is led to the relay instead.

// asked is a chain's twin for flows to service addresses.
func asked(chain string) string { return chain + "_asked" }

func serviceSet(f nft.IP) string     { return "service" + f.Suffix }
func servicePortSet(f nft.IP) string { return "service_port" + f.Suffix }
func relayedSet(f nft.IP) string     { return "relayed" + f.Suffix }

// uppers are the halves of the network's prefixes that are kept for resources.
func (l layout) uppers(f nft.IP) (out []netip.Prefix) {
	for _, p := range l.prefixes(f) {
		if u := rules.Upper(p); u.IsValid() {
			out = append(out, u)
		}
	}
	return out
}

// serviceSets are the maps from service addresses to targets; all of them are exact.
func (l layout) serviceSets(f nft.IP) []nft.Set {
	if !l.services {
		return nil
	}
	addr := nft.Field{Typ: f.ElementType, Len: f.Len}
	proto, port := nft.Field{Typ: nft.TypeInetProto, Len: 1}, nft.Field{Typ: nft.TypeInetService, Len: 2}
	return []nft.Set{
		{Name: serviceSet(f), Key: []nft.Field{addr}, Data: f.ElementType, Wide: f.Len},
		{Name: servicePortSet(f), Key: []nft.Field{addr, proto, port}, Data: nft.Concat(f.ElementType, nft.TypeInetService), Wide: f.Len + 4},
		{Name: relayedSet(f), Key: []nft.Field{addr}},
	}
}

// publish leads the first packets of flows to their targets. It ends the chain of
// redirections, and knows nothing of permissions: those are judged afterwards.
func (b *builder) publish(f nft.IP) {
	if !b.services {
		return
	}
	name, published := "service"+f.Suffix, "published"+f.Suffix
	b.chain(published, name)
	b.rule(published, f.IsProto(), nft.One(f.LoadSrc(nft.R0), b.lookup(sessionSet(f), nft.R0), b.goTo(name)))
	b.rule(published, nft.L4Proto(unix.IPPROTO_TCP), dport(80), nft.One(b.goTo("captive_web"+f.Suffix)))
	b.rule(published, nft.One(b.goTo(name)))

	dnat := expr.NAT{Type: expr.NATTypeDestNAT, Family: uint32(f.NFProto), RegAddrMin: nft.R0}
	b.rule(name, f.IsProto(), nft.One(f.LoadDst(nft.R0), b.lookupMap(serviceSet(f), nft.R0, nft.R0), nft.Encode(&dnat)))
	dnat.RegProtoMin, dnat.Specified = f.After(nft.R0), true
	b.rule(name, f.IsProto(), nft.One(f.LoadDst(nft.R0), nft.Meta(expr.MetaKeyL4PROTO, f.After(nft.R0)),
		nft.Payload(expr.PayloadBaseTransportHeader, 2, 2, f.After(nft.R0)+1),
		b.lookupMap(servicePortSet(f), nft.R0, nft.R0), nft.Encode(&dnat)))
	as := b.addrs(f)
	for _, to := range []struct {
		proto byte
		port  uint16
	}{{unix.IPPROTO_TCP, b.relayTCP}, {unix.IPPROTO_UDP, b.relayUDP}} {
		if to.port != 0 && len(as) > 0 {
			b.rule(name, f.IsProto(), nft.L4Proto(to.proto), nft.One(f.LoadDst(nft.R0), b.lookup(relayedSet(f), nft.R0)), b.toGateway(f, as[0], to.port))
		}
	}
}

// toPublished leads packets of a nat chain that are addressed to a service to the chain of
// redirections for them.
func (b *builder) toPublished(chain string, f nft.IP, to string, match ...[]nft.Stmt) {
	if b.services {
		for _, u := range b.uppers(f) {
			b.rule(chain, nft.Join(match...), f.IsProto(), f.In(f.LoadDst, u, false), nft.One(b.goTo(to)))
		}
	}
}

// neverUpper refuses packets that no translation has led away from a service address.
func (b *builder) neverUpper(chain string, f nft.IP, end ...nft.Stmt) {
	for _, u := range b.uppers(f) {
		b.rule(chain, f.IsProto(), f.In(f.LoadDst, u, false), end)
	}
}

// keyAsked finds the zone of flows that asked for a service address. A miss is no zone.
func (b *builder) keyAsked(key string, f nft.IP) {
	if !b.services {
		return
	}
	for _, u := range b.uppers(f) {
		is := f.In(f.CtAskedReg, u, false)
		b.rule(key, is, nft.One(f.CtAskedReg(nft.R0), b.lookupMap(zoneSet(f), nft.R0, nft.R0), nft.SetMeta(expr.MetaKeyPRIORITY, nft.R0), b.goTo(asked("ports"))))
		b.rule(key, is, b.setPriority0(), nft.One(nft.Return()))
	}
}

// againAsked lets pass what was permitted by the address that it asked for: where it goes
// beyond that, no nat chain changes any more.
func (b *builder) againAsked(chain string, f nft.IP) {
	if !b.services {
		return
	}
	for _, u := range b.uppers(f) {
		b.rule(chain, b.marked(), f.In(f.CtAskedReg, u, false), nft.One(nft.Accept()))
	}
}

// leader knows where services lead to.
type leader struct {
	relay   bool                  // there is one
	local   func(netip.Addr) bool // an address of this host
	network []netip.Prefix
}

// leads are the elements that lead to services.
func (l leader) leads(list []dataplane.Service) contents {
	c := contents{}
	for _, s := range list {
		for _, a := range s.Addrs {
			l.lead(c, s, a)
		}
	}
	return c
}

func (l leader) lead(c contents, s dataplane.Service, a netip.Addr) {
	f, key := nft.IPOf(a), string(a.AsSlice())
	switch to, relayed := l.target(s, a); {
	case relayed && l.relay:
		c.put(relayedSet(f), key, nft.Value{})
	case !to.IsValid():
	case s.ToPort == 0:
		c.put(serviceSet(f), key, nft.WideValue(to.AsSlice()))
	case len(s.Ports) == 1:
		key = string(append(append([]byte(key), s.Ports[0].Proto, 0, 0, 0), byte(s.Ports[0].First>>8), byte(s.Ports[0].First), 0, 0))
		c.put(servicePortSet(f), key, nft.WideValue(append(binary.BigEndian.AppendUint16(to.AsSlice(), s.ToPort), 0, 0)))
	}
}

// target is where the kernel leads flows to a service at its address a; not valid if it
// leads them nowhere, or to the relay.
func (l leader) target(s dataplane.Service, a netip.Addr) (to netip.Addr, relayed bool) {
	if s.Path != "" {
		return netip.Addr{}, true
	}
	if len(s.Hosts) == 0 {
		return netip.Addr{}, false
	}
	to = s.Hosts[0].Unmap()
	switch {
	case to.IsLoopback() || l.local != nil && l.local(to):
		return netip.Addr{}, true
	case to.IsUnspecified() || to.IsMulticast() || to.IsLinkLocalUnicast():
		return netip.Addr{}, false
	case slices.ContainsFunc(l.network, func(p netip.Prefix) bool { return p.Contains(to) }):
		return netip.Addr{}, false // a device, or another service: they are granted as such
	case s.ProxyV2 || to.Is4() != a.Is4():
		return netip.Addr{}, true
	}
	return to, false
}

// moved are the service addresses that were a resource's and are no more that one's: they may
// be another's by now, and a grant of that opens nothing that was begun before.
func moved(before, after []dataplane.Service) (out []netip.Addr) {
	names := make(map[netip.Addr]string, 2*len(after))
	for _, s := range after {
		for _, a := range s.Addrs {
			names[a] = s.Name
		}
	}
	for _, s := range before {
		for _, a := range s.Addrs {
			if names[a] != s.Name {
				out = append(out, a)
			}
		}
	}
	return out
}

// flowAsked is the flow by where it asked to go, if that is a service address.
func (s *state) flowAsked(fl dataplane.Flow, asked netip.AddrPort) dataplane.Flow {
	for _, p := range s.gateway.Network {
		if u := rules.Upper(p); u.IsValid() && u.Contains(asked.Addr()) {
			fl.Dst = asked.Addr()
			if hasPorts(fl.Proto) {
				fl.DstPort = asked.Port()
			}
		}
	}
	return fl
}
