// Package filter is the packet filter of the linux data plane: one nftables table,
// "inet vpnd", and the tracked flows that it judges. It decides nothing itself: roles,
// zones and classes come from package rules, sessions from the desired state. It changes nothing
// of the host's but that table, and routing is no business of it: what it permits it
// marks, and the plane's routing rules prohibit what is not marked.
package filter

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"sync"
	"time"

	"vpnd/internal/dataplane"
	"vpnd/internal/dataplane/linux/nft"
	"vpnd/internal/dataplane/linux/tell"
)

// Config is what a Filter needs to start.
type Config struct {
	Interface string // the tunnel's interface, by name
	AppPort   uint16 // the protected app's TCP port on the gateway's tunnel addresses
	// PortalPort is where the portal's socket really listens, bound to Interface.
	PortalPort uint16
	// RelayTCP and RelayUDP are where the relay of services really listens, bound to
	// Interface; 0: there is none.
	RelayTCP, RelayUDP uint16
	// RelayCut is called for each flow of datagrams to the relay that is cut, by its client as
	// the relay sees it; nil: nobody is told.
	RelayCut func(client netip.AddrPort)
	// Local tells whether an address is one of this host's own, which the kernel's
	// translation does not lead to.
	Local func(netip.Addr) bool
	// Public is the public portal's TCP port, for complaints alone; 0: none.
	Public uint16
	// Mark is the bit of packet marks that says "permitted". Other bits are left alone.
	Mark uint32
	// GuardForward4 and 6: the host did not forward before forwarding was switched on for
	// the tunnel, so nothing is forwarded that is not the tunnel's.
	GuardForward4, GuardForward6 bool
	// OnDrift is called, outside of any lock, for each thing that was put right.
	OnDrift func(dataplane.Drift)
	Log     *slog.Logger

	noOwner, noDestroy, noLabels bool // tests force the fallbacks for other kernels
}

// ErrClosed is returned after Close.
var ErrClosed = errors.New("packet filter closed")

// Filter is the packet filter. Its methods may be called concurrently.
type Filter struct {
	c      Config
	kernel features
	now    func() time.Time

	mu       sync.Mutex // guards what follows
	sock     *nft.Socket
	commit   func(context.Context, *nft.Batch) error // of sock
	closed   bool
	built    bool            // the table is there, as far as we know
	layout   layout          // of the table
	classes  map[uint32]bool // whose chains are in the table
	suffix   string          // of the names in the table
	garbage  *generation     // what a former policy has left in the table
	state                    // that the table holds
	uncut    cut             // flows that are to be killed, and are not yet
	clock    *time.Timer     // wakes at policy.Next
	instants instants        // at which sessions end
	expiry   *time.Timer     // wakes at the next of instants
	teller   *tell.Teller
	told     <-chan struct{} // of the last change

	watch *watcher
}

// Open asks the kernel what it can do. It changes nothing.
func Open(ctx context.Context, c Config) (*Filter, error) {
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.OnDrift == nil {
		c.OnDrift = func(dataplane.Drift) {}
	}
	if len(c.Interface) == 0 || len(c.Interface) > 15 {
		return nil, fmt.Errorf("interface name %q: it must have 1 to 15 characters", c.Interface)
	}
	if c.Mark == 0 {
		return nil, errors.New("the packet filter needs a mark")
	}
	sock, err := nft.Open()
	if err != nil {
		return nil, err
	}
	f := &Filter{c: c, sock: sock, commit: sock.Commit, now: time.Now}
	if f.kernel, err = probe(ctx, sock); err != nil {
		sock.Close()
		return nil, err
	}
	f.kernel.owner = f.kernel.owner && !c.noOwner
	f.kernel.destroy = f.kernel.destroy && !c.noDestroy
	f.kernel.labels = f.kernel.labels && !c.noLabels
	f.teller = tell.New(tell.Config{Interface: c.Interface, PacketMark: tellMark(c.Mark), Log: c.Log})
	if f.watch, err = startWatch(f); err != nil {
		sock.Close()
		return nil, err
	}
	return f, nil
}

// Close removes the table, and nothing else.
func (f *Filter) Close() error {
	f.mu.Lock()
	if f.closed {
		f.mu.Unlock()
		return nil
	}
	f.closed = true
	if f.clock != nil {
		f.clock.Stop()
	}
	if f.expiry != nil {
		f.expiry.Stop()
	}
	f.teller.Close()
	b := &nft.Batch{Table: tableName}
	err := f.takeOver(b)
	if err == nil {
		err = f.commit(context.Background(), b)
	}
	f.sock.Close()
	f.mu.Unlock()
	f.watch.close()
	if err != nil {
		return fmt.Errorf("removing table %s: %w", tableName, err)
	}
	return nil
}
