package linux

import (
	"context"

	"vpnd/internal/dataplane"
	"vpnd/internal/dataplane/linux/filter"
)

// PacketFilter is the other half of the plane; *filter.Filter is one.
type PacketFilter interface {
	// Set makes s the desired state, in one transaction where possible.
	Set(context.Context, dataplane.State) error
	// Update closes what c closes, opens what it opens, and kills the flows that lost
	// their permission.
	Update(context.Context, dataplane.Change) error
	// Told returns a channel that is closed when both ends of the flows that the last Set or
	// Update has killed know it, or cannot be told.
	Told() <-chan struct{}
	// Permits tells whether the first packet of a new flow would pass, by the table that
	// is in the kernel.
	Permits(context.Context, dataplane.Flow) (bool, error)
	// Complaints lists other tables' chains that will drop ours.
	Complaints() []dataplane.Complaint
	// Detail names the kernel features in use, and the fallbacks.
	Detail() string
	// Close removes our table.
	Close() error
}

// FilterConfig is what the packet filter needs to start. Its guards stay off: what the
// host did not forward is guarded by routing rules, which a flushed table leaves there.
type FilterConfig = filter.Config

func openFilter(ctx context.Context, c FilterConfig) (PacketFilter, error) {
	return filter.Open(ctx, c)
}

// Permits implements dataplane.Plane: by the packet filter, whose mark is what routing
// lets through, and only while there is a tunnel.
func (p *Plane) Permits(ctx context.Context, f dataplane.Flow) (bool, error) {
	p.mu.Lock()
	closed, up := p.closed, p.link != nil
	p.mu.Unlock()
	if closed {
		return false, ErrClosed
	}
	if !up {
		return false, nil
	}
	return p.filter.Permits(ctx, f)
}
