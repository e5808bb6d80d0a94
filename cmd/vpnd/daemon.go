package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"

	"vpnd/acl/rules"
	"vpnd/internal/accept"
	"vpnd/internal/acme"
	"vpnd/internal/api"
	"vpnd/internal/control"
	"vpnd/internal/dataplane"
	"vpnd/internal/locals"
	"vpnd/internal/metrics"
	"vpnd/internal/reconcile"
	"vpnd/portal"
)

// Daemon is a running vpnd.
type Daemon struct {
	flags   *Flags
	out     io.Writer // for the person who starts it
	log     *slog.Logger
	plane   dataplane.Plane
	why     string // why this plane
	store   replica
	service *control.Service
	rec     *reconcile.Reconciler
	locals  *locals.List
	sealer  *control.Sealer
	tls     *tls.Config
	fatal   chan error
	unsaid  bool // flags ask for other settings, and nobody led who could change them
	budget  accept.Budget
	managed bool // by a service manager, which reloads by SIGHUP
	level   slog.LevelVar
	metrics *metrics.Metrics
	scrapes net.Listener // nil: no --metrics
	journal bool         // the log goes to systemd's journal
	tests   selfTests

	public         net.Listener
	plain          net.Listener  // port 80 with --acme; nil: not to be had
	acme           *acme.Manager // nil: no --acme
	control, whois net.Listener
}

// firstApply bounds the time until the plane has the stored state at start: 50,000 peers
// take some seconds.
const firstApply = 2 * time.Minute

// Open prepares everything that can fail, from what changes nothing to what changes most,
// so that a refusal leaves the host as it was.
func Open(ctx context.Context, f *Flags, w io.Writer) (_ *Daemon, err error) {
	d := &Daemon{flags: f, out: w, fatal: make(chan error, 1), managed: underManager(), journal: inJournal(w)}
	d.log = newLog(f, w, &d.level)
	d.metrics = d.newMetrics()
	defer func() {
		if err != nil {
			err = errors.Join(err, d.Close())
		}
	}()
	descriptors, err := accept.Descriptors()
	if err != nil {
		return nil, err
	}
	d.budget = accept.Share(descriptors)
	if d.public, err = reservePortal(f.Portal); err != nil {
		return nil, err
	}
	d.reserveHTTP()
	if err := d.reserveMetrics(); err != nil {
		return nil, err
	}
	if err := d.openLocals(); err != nil {
		return nil, err
	}
	pc := d.planeConfig()
	plane, why, err := choosePlane(ctx, f.Plane, pc)
	if err != nil {
		return nil, err
	}
	d.why = why
	if f.Plane == "auto" && plane != "linux" {
		d.log.Info("the data plane was chosen", "what", plane, "why", why)
	}
	precheck := func(g dataplane.Gateway) error { return precheckPlane(ctx, plane, pc, g) }
	if err := d.openState(ctx, precheck); err != nil {
		return nil, err
	}
	if err := d.openSockets(); err != nil {
		return nil, err
	}
	pc.Recall = d.recall()
	if d.plane, err = openPlane(ctx, plane, pc); err != nil {
		return nil, err
	}
	d.rec = reconcile.New(reconcile.Config{
		State:        d.store.State(),
		Plane:        d.plane,
		Gateway:      d.gateway,
		PresharedKey: d.sealer.PresharedKey,
		Now:          time.Now,
		Log:          d.part("reconcile"),
	})
	return d, nil
}

func (d *Daemon) planeConfig() dataplane.Config {
	own := []netip.AddrPort{d.flags.wireguard}
	for _, l := range []net.Listener{d.public, d.plain, d.scrapes} {
		if l != nil {
			own = append(own, l.Addr().(*net.TCPAddr).AddrPort())
		}
	}
	var portal uint16
	if a, ok := d.public.Addr().(*net.TCPAddr); ok {
		portal = uint16(a.Port)
	}
	return dataplane.Config{
		Portal:    portal,
		Interface: d.flags.Interface,
		AppPort:   d.flags.AppPort,
		AppSocket: d.flags.App,
		Flows:     d.budget.Flows,
		Relay:     d.budget.Relay,
		Own:       own,

		LocalTarget: d.locals.Allow,
		OnDrift: func(x dataplane.Drift) {
			d.metrics.Drift()
			d.log.Warn("put right what was changed by hand", "what", x.What, "why", "was "+x.Was)
			d.service.ReportDrift(x)
		},
		Log: d.part("plane"),
	}
}

// Wait, Applied, Rules, Stats and Permits make the daemon control's Gateway.

// Wait returns when the plane has applied the index.
func (d *Daemon) Wait(ctx context.Context, index uint64) error { return d.rec.Wait(ctx, index) }

// Applied is the index that the plane has applied.
func (d *Daemon) Applied() uint64 { return d.rec.Applied() }

// Rules is the Ruleset in force.
func (d *Daemon) Rules() *rules.Ruleset { return d.rec.Rules() }

// Stats reads the plane's counters, without self-tests.
func (d *Daemon) Stats(ctx context.Context, keys ...dataplane.Key) (dataplane.Stats, error) {
	s, err := d.plane.Stats(ctx, keys...)
	s.Detail = d.why + "; " + s.Detail
	d.tests.hide(s.Peers, d.store.State().View())
	return s, err
}

// Permits asks the plane what it enforces.
func (d *Daemon) Permits(ctx context.Context, f dataplane.Flow) (bool, error) {
	return d.plane.Permits(ctx, f)
}

// openSockets opens what local programs call.
func (d *Daemon) openSockets() (err error) {
	if d.control, err = api.ListenControl(d.flags.Control); err != nil {
		return err
	}
	gid, ok := groupID(d.flags.WhoisGroup)
	switch {
	case !ok:
		gid = os.Getegid()
		if os.Geteuid() == 0 { // another user's app runs as that user anyway
			d.log.Warn("only this user may ask who is calling: make that group, or name another with --whois-group", "what", "group "+d.flags.WhoisGroup, "why", "there is no such group")
		}
	case !mayGive(gid):
		gid = os.Getegid()
		d.log.Warn("only this user may ask who is calling: add it to that group, or name another with --whois-group", "what", "group "+d.flags.WhoisGroup, "why", "this user is not in it")
	}
	d.whois, err = api.ListenWhoIs(filepath.Join(filepath.Dir(d.flags.Control), "whois.sock"), gid)
	return err
}

// Run serves until ctx ends or something cannot go on. When it returns, nothing that it
// has started is still at work.
func (d *Daemon) Run(ctx context.Context) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		select {
		case err := <-d.fatal:
			return err
		case <-ctx.Done():
			return ctx.Err()
		}
	})
	g.Go(func() error { return d.rec.Run(ctx) })
	g.Go(func() error { d.service.Run(ctx); return nil })
	seen := d.store.State().View()
	g.Go(func() error { d.logEvents(ctx, seen); return nil })
	g.Go(func() error { d.countEvents(ctx, seen); return nil })
	if d.unsaid {
		g.Go(func() error { d.sayFlags(ctx); return nil })
	}

	if err := d.start(ctx, g); err != nil {
		stop()
		// What made start fail, if it was one of these, says more than start does.
		if cause := g.Wait(); cause != nil && !errors.Is(cause, context.Canceled) {
			return cause
		}
		return err
	}
	return g.Wait()
}

// start begins to serve once the plane has the stored state.
func (d *Daemon) start(ctx context.Context, g *errgroup.Group) error {
	first, cancel := context.WithTimeout(ctx, firstApply)
	err := d.rec.Wait(first, d.store.State().View().Index())
	cancel()
	if err != nil {
		return err
	}
	keeper := d.keeper()
	g.Go(func() error { keeper.Run(ctx); return nil })
	tunnel, err := d.plane.Listen(ctx)
	if err != nil {
		return fmt.Errorf("opening the portal inside the tunnel: %w", err)
	}
	settings, _ := d.store.State().View().Settings()
	pc := portal.Config{
		Service: d.service,
		URL:     d.service.URL,
		Tunnel:  settings.GatewayAddrs(),
		AppPort: d.flags.AppPort,
		Log:     d.log.With("part", "portal"),
	}
	d.serveHTTP(ctx, g, tls.NewListener(d.limitPublic(d.public), d.tls), portal.Public(pc))
	d.serveHTTP(ctx, g, d.limitTunnel(tunnel), portal.Tunnel(pc))
	edge := api.New(d.service, d.part("api"))
	edge.Doctor = d.diagnose
	g.Go(func() error { edge.Run(ctx); return nil })
	d.serveGRPC(ctx, g, d.limitControl(d.control), edge.Control())
	d.serveGRPC(ctx, g, d.limitWhoIs(d.whois), edge.WhoIs())
	d.serveMetrics(ctx, g)
	d.serveACME(ctx, g)
	d.greet(ctx, settings)
	return d.serveManager(ctx, g)
}

func (d *Daemon) serveHTTP(ctx context.Context, g *errgroup.Group, l net.Listener, h http.Handler) {
	s := portal.NewServer(h, d.part("portal"))
	context.AfterFunc(ctx, func() { s.Close() })
	g.Go(func() error {
		if err := s.Serve(l); ctx.Err() == nil {
			return fmt.Errorf("serving the portal on %s: %w", l.Addr(), err)
		}
		return nil
	})
}

func (d *Daemon) serveGRPC(ctx context.Context, g *errgroup.Group, l net.Listener, s *grpc.Server) {
	context.AfterFunc(ctx, s.Stop)
	g.Go(func() error {
		if err := s.Serve(l); ctx.Err() == nil {
			return fmt.Errorf("serving gRPC on %s: %w", l.Addr(), err)
		}
		return nil
	})
}

// Close takes everything away again; it may be called after a failed Open.
func (d *Daemon) Close() error {
	var errs []error
	for _, l := range []net.Listener{d.public, d.plain, d.control, d.whois, d.scrapes} {
		if l != nil {
			if err := l.Close(); !errors.Is(err, net.ErrClosed) {
				errs = append(errs, err)
			}
		}
	}
	if d.plane != nil {
		errs = append(errs, d.plane.Close())
	}
	if d.store != nil {
		errs = append(errs, d.store.Close())
	}
	return errors.Join(errs...)
}
