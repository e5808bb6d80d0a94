package control

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"vpnd/internal/dataplane"
	"vpnd/peers"
)

const (
	driftQueue = 64
	driftEvery = time.Second // at most one audit entry in so long
)

// lossCounter counts drift reports that found the queue full.
type lossCounter struct{ n atomic.Int64 }

// ReportDrift audits that something was changed by hand and has been put right. It never
// blocks: what comes faster than the audit log should grow is only counted.
func (s *Service) ReportDrift(d dataplane.Drift) {
	select {
	case s.drift <- d:
	default:
		s.lost.n.Add(1)
	}
}

// auditDrift writes reports to the audit log until ctx ends.
func (s *Service) auditDrift(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case d := <-s.drift:
			n := peers.Note{Action: "gateway.drift", Target: clip(d.What), Detail: clip(d.Was + " by hand; put right")}
			if lost := s.lost.n.Swap(0); lost > 0 {
				n.Detail += fmt.Sprintf("; %d more like it were not recorded one by one", lost)
			}
			if _, _, err := s.propose(ctx, n); err != nil && ctx.Err() == nil {
				s.logf("audit that %s was %s: %v", d.What, d.Was, cause(err))
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(driftEvery):
		}
	}
}

// clip keeps a note's text within what State takes.
func clip(text string) string {
	const most = 200 // bytes
	if len(text) <= most {
		return text
	}
	return text[:most-3] + "..."
}
