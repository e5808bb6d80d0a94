package linux

import (
	"fmt"
	"net"
	"slices"
	"sync"
	"time"

	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"vpnd/internal/dataplane"
	"vpnd/internal/dataplane/recall"
)

// sessionLife is how long a WireGuard peer may use the keys of a handshake
// (REJECT_AFTER_TIME).
const sessionLife = 180 * time.Second

// whereabouts is where peers were last heard from. WireGuard forgets that, or the
// session's keys, when somebody removes a peer, an interface of the kernel's, or sets it
// down. The peer itself would notice after 15 s; a keepalive from our side shakes hands
// with it at once.
type whereabouts struct {
	mu sync.Mutex
	at map[dataplane.Key]sighting
}

type sighting struct {
	endpoint  *net.UDPAddr
	handshake time.Time
}

// note keeps where the peers of d are that have a session.
func (w *whereabouts) note(d *wgtypes.Device) {
	w.mu.Lock()
	defer w.mu.Unlock()
	now := time.Now()
	if w.at == nil {
		w.at = map[dataplane.Key]sighting{}
	}
	for k, s := range w.at {
		if now.Sub(s.handshake) > sessionLife {
			delete(w.at, k)
		}
	}
	for _, h := range d.Peers {
		if h.Endpoint != nil && now.Sub(h.LastHandshakeTime) < sessionLife {
			w.at[dataplane.Key(h.PublicKey)] = sighting{h.Endpoint, h.LastHandshakeTime}
		}
	}
}

// recall adds to peers that are put where they were. calm takes the keepalive away again.
func (w *whereabouts) recall(put []wgtypes.PeerConfig) (calm []wgtypes.PeerConfig) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for i := range put {
		if s, ok := w.at[dataplane.Key(put[i].PublicKey)]; ok && time.Since(s.handshake) < sessionLife {
			put[i].Endpoint = s.endpoint
			calm = append(calm, keepalive(&put[i]))
		}
	}
	return calm
}

// prod gives the peers that are there, and have a session, a reason to shake hands.
func (w *whereabouts) prod(want map[dataplane.Key]dataplane.Device) (prod, calm []wgtypes.PeerConfig) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for k, s := range w.at {
		if _, ok := want[k]; ok && time.Since(s.handshake) < sessionLife {
			p := wgtypes.PeerConfig{PublicKey: wgtypes.Key(k), UpdateOnly: true, Endpoint: s.endpoint}
			calm = append(calm, keepalive(&p))
			prod = append(prod, p)
		}
	}
	return prod, calm
}

// keepalive switches p's keepalive on, upon which WireGuard sends one, and returns what
// switches it off again.
func keepalive(p *wgtypes.PeerConfig) wgtypes.PeerConfig {
	on, off := 25*time.Second, time.Duration(0)
	p.PersistentKeepaliveInterval = &on
	return wgtypes.PeerConfig{PublicKey: p.PublicKey, UpdateOnly: true, PersistentKeepaliveInterval: &off}
}

// configureRecalled puts peers back that WireGuard has lost, with where they were.
func (p *Plane) configureRecalled(put []wgtypes.PeerConfig) error {
	calm := p.whereabouts.recall(put)
	if err := p.configure(put); err != nil {
		return err
	}
	return p.configure(calm)
}

// prod shakes hands anew with those whose session's keys WireGuard has dropped.
func (p *Plane) prod() error {
	prod, calm := p.whereabouts.prod(p.want.devices)
	if err := p.configure(prod); err != nil {
		return err
	}
	return p.configure(calm)
}

// putPeers puts peers; at the first time those first that a former process had sessions
// with, since they wait.
func (p *Plane) putPeers(put []wgtypes.PeerConfig) error {
	r, e := p.c.Recall, p.link.engine
	if p.recalled || e == nil || len(r.Peers) == 0 || !r.After.IsZero() {
		return p.configureRecalled(put)
	}
	p.recalled = true
	live := map[wgtypes.Key]bool{}
	for _, s := range r.Peers {
		live[wgtypes.Key(s.Key)] = true
	}
	var first, rest []wgtypes.PeerConfig
	for _, c := range put {
		if live[c.PublicKey] {
			first = append(first, c)
		} else {
			rest = append(rest, c)
		}
	}
	if err := p.configure(first); err != nil {
		return err
	}
	if err := e.dev.Up(); err != nil { // the interface is; wireguard-go may not have heard yet
		return fmt.Errorf("starting wireguard-go: %w", err)
	}
	h := recall.Prepare(e.dev, r.Peers)
	p.done.Go(func() { h.Send(p.ctx) })
	return p.configureRecalled(rest)
}

// recall shakes hands with the peers that a former process had sessions with, where that
// was not done as they were put: when it is time, with those that have not come meanwhile.
func (p *Plane) recall() {
	r := p.c.Recall
	if len(r.Peers) == 0 {
		return
	}
	select {
	case <-p.ctx.Done():
		return
	case <-time.After(time.Until(r.After)):
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed || p.link == nil || p.recalled {
		return
	}
	p.recalled = true
	d, err := p.wg.Device(p.c.Interface)
	if err != nil {
		p.c.Log.Warn("shaking hands with the peers from before the restart", "what", p.c.Interface, "why", err)
		return
	}
	silent := map[dataplane.Key]bool{}
	for _, h := range d.Peers {
		silent[dataplane.Key(h.PublicKey)] = h.LastHandshakeTime.IsZero()
	}
	peers := slices.DeleteFunc(slices.Clone(r.Peers), func(s dataplane.Sighting) bool { return !silent[s.Key] })
	if e := p.link.engine; e != nil {
		h := recall.Prepare(e.dev, peers)
		p.done.Go(func() { h.Send(p.ctx) })
		return
	}
	p.whereabouts.remember(peers)
	if err := p.prod(); err != nil {
		p.c.Log.Warn("shaking hands with the peers from before the restart", "why", err)
	}
}

// remember takes what a former process has noted for seen just now.
func (w *whereabouts) remember(peers []dataplane.Sighting) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.at == nil {
		w.at = map[dataplane.Key]sighting{}
	}
	for _, s := range peers {
		w.at[s.Key] = sighting{net.UDPAddrFromAddrPort(s.Endpoint), time.Now()}
	}
}
