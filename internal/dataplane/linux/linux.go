// Package linux is the data plane on a Linux kernel: a WireGuard interface, the
// routing rules that close it without the packet filter, the forwarding it needs and
// a listener that only the tunnel can reach. Packets are judged by its subpackage
// filter.
//
// It owns one interface, the routing rules that carry its protocol number, and for as
// long as it runs the few sysctls that it had to change. It touches nothing else of
// the host, and Close takes all of it away again.
//
// # What closes the gateway when vpnd is not there
//
// A crash leaves the table, the rules and the guards in place: the tunnel then
// forwards what the kernel's session timeouts still allow, and nothing without the
// filter's mark. After a reboot rules and table are gone, but so is everything that
// they close: the interface, the route to the tunnel's network and the forwarding
// that vpnd switched on do not outlive the kernel either. Nothing of it is written
// where a boot would find it.
package linux

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.zx2c4.com/wireguard/wgctrl"

	"vpnd/internal/dataplane"
)

// Errors that callers branch on.
var (
	// ErrInterfaceTaken means that the interface's name belongs to something else.
	ErrInterfaceTaken = errors.New("interface name is taken")
	// ErrCollision means that the tunnel's network overlaps what the host already routes.
	ErrCollision = errors.New("address range collides with the host's routes")
	// ErrPortInUse means that the UDP port for WireGuard is taken.
	ErrPortInUse = errors.New("port in use")
	// ErrRunning means that another vpnd runs this plane in the same network namespace.
	ErrRunning = errors.New("another vpnd is running here")
	// ErrClosed means that the plane was closed.
	ErrClosed = errors.New("data plane is closed")
)

// Mark is the bit of the packet mark (fwmark) by which the filter tells routing that it
// permits a packet. Kubernetes uses 0xc000, Tailscale 0xff0000; wg-quick compares whole
// marks, and only those of packets that the host itself sends.
const Mark uint32 = 1 << 27

// Plane is the linux data plane. It implements dataplane.Plane.
type Plane struct {
	c    dataplane.Config
	o    Options
	ipv6 bool // the kernel has IPv6

	ctx  context.Context // ends with the plane
	stop context.CancelFunc
	done sync.WaitGroup
	// suspect: somebody may have changed the WireGuard device's configuration.
	suspect atomic.Bool
	poke    chan struct{} // wakes the watcher; capacity 1

	services    *published
	stats       statsCache
	whereabouts whereabouts

	// mu guards what follows and serialises all changes to the host.
	mu       sync.Mutex
	closed   bool
	lock     net.Listener // held from the first Set: one plane per network namespace
	filter   PacketFilter
	wg       *wgctrl.Client
	changes  uint64                             // how often peers were changed by us
	want     *desired                           // nil before the first Set
	leaving  map[dataplane.Key]dataplane.Device // whose peers go last
	link     *link                              // nil while there is none
	sys      *sysctls
	portal   *listener
	relayed  *relayed
	relays   bool           // the relay was started
	led      []netip.Prefix // where services lead to, as outs was found for
	moved    bool           // this host's addresses have changed since the filter was told of services
	outs     outputs        // the interfaces by which the routes leave
	guards   guards
	reroute  bool              // the host's routes changed since outs was found
	deaf     bool              // WireGuard has dropped its sessions' keys
	watched  bool              // the watcher runs
	recalled bool              // the peers of a former process were
	trouble  map[string]string // what cannot be put right, by subject: logged once
}

// New prepares the plane. It changes nothing on the host before the first Set.
func New(ctx context.Context, c dataplane.Config) (*Plane, error) {
	return Options{}.New(ctx, c)
}

// New prepares a plane with o.
func (o Options) New(ctx context.Context, c dataplane.Config) (*Plane, error) {
	o = o.withDefaults()
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.OnDrift == nil {
		c.OnDrift = func(dataplane.Drift) {}
	}
	if err := checkName(c.Interface); err != nil {
		return nil, err
	}
	portal, err := newListener(c.Interface, "the tunnel's portal", c.Log)
	if err != nil {
		return nil, err
	}
	portal.limit = true
	relayed, err := newRelayed(c)
	if err != nil {
		portal.release()
		return nil, err
	}
	release := func() { portal.release(); relayed.release() }
	services := newPublished()
	f, err := o.OpenFilter(ctx, FilterConfig{
		Interface: c.Interface, AppPort: c.AppPort, PortalPort: portal.port, Public: c.Portal,
		RelayTCP: relayed.tcp.port, RelayUDP: relayed.udp.port, RelayCut: relayed.udp.cut, Local: services.local,
		Mark: Mark, OnDrift: c.OnDrift, Log: c.Log,
	})
	if err != nil {
		release()
		return nil, fmt.Errorf("opening the packet filter: %w", err)
	}
	wg, err := wgctrl.New()
	if err != nil {
		release()
		return nil, fmt.Errorf("opening WireGuard's control interface: %w", err)
	}
	if _, err = os.Stat("/proc/sys/net/ipv6"); err != nil && !errors.Is(err, os.ErrNotExist) {
		release()
		return nil, fmt.Errorf("looking for IPv6 in this kernel: %w", err)
	}
	alive, stop := context.WithCancel(context.Background())
	return &Plane{
		c: c, o: o, ipv6: err == nil, ctx: alive, stop: stop,
		poke:   make(chan struct{}, 1),
		filter: f, wg: wg, portal: portal, relayed: relayed, services: services,
		leaving: make(map[dataplane.Key]dataplane.Device),
		trouble: map[string]string{},
	}, nil
}

// Listen implements dataplane.Plane. There is one listener: while it is open, a second
// call is an error.
func (p *Plane) Listen(context.Context) (net.Listener, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil, ErrClosed
	}
	if err := p.portal.open(); err != nil {
		return nil, err
	}
	if p.link != nil {
		if err := p.portal.bind(p.link.index, p.want.gateway); err != nil {
			return nil, err
		}
	}
	return p.portal, nil
}

// wake makes the watcher look now.
func (p *Plane) wake() {
	select {
	case p.poke <- struct{}{}:
	default:
	}
}

// beforeForeignSet is called before somebody else than us configures wireguard-go: what a
// removed peer's endpoint was is known only now.
func (p *Plane) beforeForeignSet() {
	c, err := wgctrl.New()
	if err != nil {
		return
	}
	defer c.Close()
	if d, err := c.Device(p.c.Interface); err == nil {
		p.whereabouts.note(d)
	}
}

// foreignSet is called when somebody else than us has configured the WireGuard device.
func (p *Plane) foreignSet() {
	p.suspect.Store(true)
	p.wake()
}

// Close implements dataplane.Plane. Everything goes in an order in which nothing is
// open in between: the interface, the forwarding, the filter, and the rules last.
func (p *Plane) Close() error {
	p.mu.Lock()
	if p.closed {
		p.mu.Unlock()
		return nil
	}
	p.closed = true
	p.stop()
	p.mu.Unlock()
	p.done.Wait()

	p.mu.Lock()
	defer p.mu.Unlock()
	var errs []error
	note := func(doing string, err error) {
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", doing, err))
		}
	}
	note("closing the portal's listener", p.portal.release())
	note("closing the relay's sockets", p.relayed.release())
	if p.want == nil {
		// Nothing was ever set: what a crashed vpnd may have left stays closed.
		note("closing WireGuard's control interface", p.wg.Close())
		return errors.Join(errs...)
	}
	if p.link != nil {
		note("removing interface "+p.c.Interface, p.link.remove())
		p.link = nil
	}
	note("putting the sysctls back", p.sys.restore())
	note("removing the packet filter", p.filter.Close())
	note("removing the routing rules", setRules(nil))
	note("closing WireGuard's control interface", p.wg.Close())
	if p.lock != nil {
		p.lock.Close()
	}
	return errors.Join(errs...)
}

// complain logs what about subject cannot be put right, once until it changes.
func (p *Plane) complain(subject string, err error) {
	if err == nil {
		delete(p.trouble, subject)
		return
	}
	if p.trouble[subject] == err.Error() {
		return
	}
	p.trouble[subject] = err.Error()
	p.c.Log.Warn("cannot be put right", "what", subject, "why", err)
}

// takeLock makes sure that this is the only plane in the network namespace: abstract
// unix sockets live per network namespace and die with their process.
func takeLock() (net.Listener, error) {
	l, err := net.Listen("unix", "@vpnd-linux-plane")
	if err != nil {
		return nil, fmt.Errorf("%w: stop it, or run this one in a network namespace of its own", ErrRunning)
	}
	return l, nil
}

// checkInterval is how often the watcher looks without being told: sysctls and kernel
// WireGuard devices send no events. What is changed by hand is put right within 2 s.
const checkInterval = time.Second
