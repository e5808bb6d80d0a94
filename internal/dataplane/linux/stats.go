package linux

import (
	"context"
	"fmt"
	"maps"
	"net/netip"
	"strings"
	"sync"
	"time"

	"golang.zx2c4.com/wireguard/wgctrl"

	"vpnd/internal/dataplane"
)

// statsCache keeps the last reading: WireGuard has no way to ask for one peer, and
// reading all of many costs time (0.3 s for 50,000). It has a lock of its own: nobody's
// sign-in waits for a reading.
type statsCache struct {
	mu    sync.Mutex
	until time.Time
	peers map[dataplane.Key]dataplane.PeerStats
}

// statsAge is how old readings may be; readings that take long are kept ten times as
// long as they took.
const statsAge = 500 * time.Millisecond

// Stats implements dataplane.Plane. A peer that was put a moment ago may be missing.
func (p *Plane) Stats(_ context.Context, keys ...dataplane.Key) (dataplane.Stats, error) {
	p.mu.Lock()
	if p.closed {
		p.mu.Unlock()
		return dataplane.Stats{}, ErrClosed
	}
	s := dataplane.Stats{Plane: "linux", Detail: p.detailLocked()}
	for _, t := range p.trouble {
		s.Filters = append(s.Filters, dataplane.Complaint{What: t})
	}
	wg, up := p.wg, p.link != nil
	local := func(netip.AddrPort) netip.Addr { return netip.Addr{} } // the kernel does not say
	if up && p.link.engine != nil {
		local = p.link.engine.bind.Local
	}
	p.mu.Unlock()

	s.Filters = append(s.Filters, p.filter.Complaints()...)
	if f := p.filter.Detail(); f != "" {
		s.Detail += "; " + f
	}
	if !up {
		return s, nil
	}
	peers, err := p.stats.read(wg, p.c.Interface, local)
	if err != nil {
		return s, err
	}
	if len(keys) == 0 {
		s.Peers = maps.Clone(peers) // the caller may keep it
		return s, nil
	}
	s.Peers = make(map[dataplane.Key]dataplane.PeerStats, len(keys))
	for _, k := range keys {
		if v, ok := peers[k]; ok {
			s.Peers[k] = v
		}
	}
	return s, nil
}

func (c *statsCache) read(wg *wgctrl.Client, iface string, local func(netip.AddrPort) netip.Addr) (map[dataplane.Key]dataplane.PeerStats, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := time.Now()
	if now.Before(c.until) {
		return c.peers, nil
	}
	d, err := wg.Device(iface)
	if err != nil {
		return nil, fmt.Errorf("reading WireGuard interface %s: %w", iface, err)
	}
	c.peers = make(map[dataplane.Key]dataplane.PeerStats, len(d.Peers))
	for _, h := range d.Peers {
		s := dataplane.PeerStats{LastHandshake: h.LastHandshakeTime, Received: h.ReceiveBytes, Sent: h.TransmitBytes}
		if h.Endpoint != nil {
			a := h.Endpoint.AddrPort()
			s.Endpoint = netip.AddrPortFrom(a.Addr().Unmap(), a.Port())
			s.Local = local(s.Endpoint)
		}
		c.peers[dataplane.Key(h.PublicKey)] = s
	}
	c.until = time.Now().Add(max(statsAge, 10*time.Since(now)))
	return c.peers, nil
}

// detail is one line for people about what this plane is made of here.
func (p *Plane) detailLocked() string {
	s := "no interface yet"
	if p.link != nil {
		s = "WireGuard of the kernel"
		if p.link.engine != nil {
			s = "wireguard-go in this process"
		}
		s += fmt.Sprintf(" on %s, %s", p.link.name, p.link.why)
	}
	if p.want != nil && !p.want.gateway.Masquerade {
		var nets []string
		for _, n := range p.want.gateway.Network {
			nets = append(nets, n.String())
		}
		s += fmt.Sprintf(", no masquerading: the networks behind need a route to %s by way of this gateway", strings.Join(nets, " and "))
	}
	if !p.ipv6 {
		s += ", no IPv6 in this kernel"
	}
	return s
}
