package netstack

import (
	"slices"
	"time"

	"vpnd/internal/dataplane"
	"vpnd/internal/dataplane/recall"
)

// recall shakes hands with the peers that a former process had sessions with, unless they
// have come by themselves meanwhile.
func (p *Plane) recall(w *tunnel) {
	r := p.cfg.Recall
	if len(r.Peers) == 0 {
		return
	}
	select {
	case <-p.ctx.Done():
		return
	case <-time.After(time.Until(r.After)):
	}
	peers := r.Peers
	if !r.After.IsZero() {
		s, err := p.Stats(p.ctx)
		if err != nil {
			p.cfg.Logf("shaking hands with the peers from before the restart: %v", err)
			return
		}
		peers = slices.DeleteFunc(slices.Clone(peers), func(x dataplane.Sighting) bool { return !s.Peers[x.Key].LastHandshake.IsZero() })
	}
	recall.Shake(p.ctx, w.dev, peers)
}
