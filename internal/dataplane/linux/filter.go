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
	// Complaints lists other tables' chains that will drop ours.
	Complaints() []string
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
