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
	"net/netip"
	"sync"
	"time"

	"vpnd/acl/rules"
	"vpnd/internal/dataplane"
	"vpnd/internal/dataplane/linux/nft"
)

// Config is what a Filter needs to start.
type Config struct {
	Interface string // the tunnel's interface, by name
	AppPort   uint16 // the protected app's TCP port on the gateway's tunnel addresses
	// PortalPort is where the portal's socket really listens, bound to Interface.
	PortalPort uint16
	// Mark is the bit of packet marks that says "permitted". Other bits are left alone.
	Mark uint32
	// GuardForward4 and 6: the host did not forward before forwarding was switched on for
	// the tunnel, so nothing is forwarded that is not the tunnel's.
	GuardForward4, GuardForward6 bool
	// OnDrift is called, outside of any lock, for each thing that was put right.
	OnDrift func(dataplane.Drift)
	Logf    func(format string, args ...any)

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
	closed   bool
	built    bool            // the table is there, as far as we know
	layout   layout          // of the table
	classes  map[uint32]bool // whose chains are in the table
	suffix   string          // of the names in the table
	garbage  *generation     // what a former policy has left in the table
	gateway  dataplane.Gateway
	policy   *rules.Ruleset
	part     policyPart
	judged   time.Time // for when part was made
	devices  map[netip.Addr]place
	sessions map[netip.Addr]session
	clock    *time.Timer // wakes at policy.Next

	watch *watcher
}

// Open asks the kernel what it can do. It changes nothing.
func Open(ctx context.Context, c Config) (*Filter, error) {
	if c.Logf == nil {
		c.Logf = func(string, ...any) {}
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
	f := &Filter{c: c, sock: sock, now: time.Now,
		devices: make(map[netip.Addr]place), sessions: make(map[netip.Addr]session)}
	if f.kernel, err = probe(ctx, sock); err != nil {
		sock.Close()
		return nil, err
	}
	f.kernel.owner = f.kernel.owner && !c.noOwner
	f.kernel.destroy = f.kernel.destroy && !c.noDestroy
	f.kernel.labels = f.kernel.labels && !c.noLabels
	if f.watch, err = startWatch(f); err != nil {
		sock.Close()
		return nil, err
	}
	return f, nil
}

// Set makes s the whole desired state. Flows that stay permitted notice nothing.
func (f *Filter) Set(ctx context.Context, s dataplane.State) error {
	if s.Rules == nil {
		return errors.New("the packet filter needs a policy")
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return ErrClosed
	}
	if err := checkSessions(s.Sessions); err != nil {
		return err
	}
	now := f.now()
	old := f.snapshotLocked()
	f.gateway, f.policy = s.Gateway, s.Rules
	f.part, f.judged = compile(f.policy, now), now
	f.devices = make(map[netip.Addr]place, 2*len(s.Devices))
	for _, d := range s.Devices {
		for _, a := range d.Addrs {
			f.devices[a] = placeOf(f.policy, a)
		}
	}
	f.sessions = make(map[netip.Addr]session, 2*len(s.Sessions))
	for _, x := range s.Sessions {
		f.putSessionLocked(x)
	}
	if err := f.applyLocked(ctx, old, now); err != nil {
		return err
	}
	return f.killRefusedLocked(now)
}

func (f *Filter) putSessionLocked(s dataplane.Session) {
	for _, a := range s.Addrs {
		f.sessions[a] = session{until: s.Until, codes: s.Codes}
	}
}

// checkSessions refuses serials that mean something else as marks.
func checkSessions(list []dataplane.Session) error {
	for _, s := range list {
		for _, c := range s.Codes {
			if c.Serial == 0 || c.Serial >= lastSerial {
				return fmt.Errorf("code serial %#x of device %s is outside of 1 to %#x", c.Serial, s.Device, uint32(lastSerial)-1)
			}
		}
	}
	return nil
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
	b := &nft.Batch{Table: tableName}
	err := f.takeOver(b)
	if err == nil {
		err = f.sock.Commit(context.Background(), b)
	}
	f.sock.Close()
	f.mu.Unlock()
	f.watch.close()
	if err != nil {
		return fmt.Errorf("removing table %s: %w", tableName, err)
	}
	return nil
}
