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
			if _, err := s.ask(ctx, NoteDrift{What: d.What, Was: d.Was, Lost: s.lost.n.Swap(0)}); err != nil && ctx.Err() == nil {
				s.log.Warn("a change by hand could not be audited", "what", d.What, "was", d.Was, "why", cause(err))
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(driftEvery):
		}
	}
}

// NoteDrift asks for a line of the audit log: something was changed by hand and put right.
type NoteDrift struct {
	What, Was string
	Lost      int64 // how many more there were that nobody counted one by one
}

func (q NoteDrift) decide(ctx context.Context, d *decision) (Answer, error) {
	n := peers.Note{Action: "gateway.drift", Target: clip(q.What), Detail: clip(q.Was + " by hand; put right")}
	if q.Lost > 0 {
		n.Detail += fmt.Sprintf("; %d more like it were not recorded one by one", q.Lost)
	}
	index, _, err := d.propose(ctx, n)
	return Answer{Index: index}, err
}

// clip keeps a note's text within what State takes.
func clip(text string) string {
	const most = 200 // bytes
	if len(text) <= most {
		return text
	}
	return text[:most-3] + "..."
}
