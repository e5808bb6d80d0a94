package netstack

import (
	"slices"
	"time"

	"vpnd/internal/dataplane"
	"vpnd/internal/dataplane/recall"
)

// putPeersLocked puts WireGuard peers; at the first time those first that a former process
// had sessions with, since they wait.
func (p *Plane) putPeersLocked(put []dataplane.Device) error {
	if r := p.cfg.Recall; !p.recalled && len(r.Peers) > 0 {
		p.recalled = true
		live := map[dataplane.Key]bool{}
		for _, s := range r.Peers {
			live[s.Key] = true
		}
		var first, rest []dataplane.Device
		for _, d := range put {
			if live[d.PublicKey] {
				first = append(first, d)
			} else {
				rest = append(rest, d)
			}
		}
		if err := p.wg.peers(nil, first); err != nil {
			return err
		}
		if r.After.IsZero() {
			go recall.Prepare(p.wg.dev, r.Peers).Send(p.ctx)
		} else {
			go p.recallLater(p.wg, r)
		}
		put = rest
	}
	return p.wg.peers(nil, put)
}

// recallLater shakes hands with the peers that a former process had sessions with when it
// is time, unless they have come by themselves meanwhile.
func (p *Plane) recallLater(w *tunnel, r dataplane.Recall) {
	select {
	case <-p.ctx.Done():
		return
	case <-time.After(time.Until(r.After)):
	}
	s, err := p.Stats(p.ctx)
	if err != nil {
		p.cfg.Log.Warn("shaking hands with the peers from before the restart", "why", err)
		return
	}
	peers := slices.DeleteFunc(slices.Clone(r.Peers), func(x dataplane.Sighting) bool { return !s.Peers[x.Key].LastHandshake.IsZero() })
	recall.Prepare(w.dev, peers).Send(p.ctx)
}
