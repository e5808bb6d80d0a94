package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"time"

	"vpnd/internal/control"
	"vpnd/internal/dataplane"
	"vpnd/internal/store"
	"vpnd/peers"
)

// replica is what a daemon needs of internal/store.
type replica interface {
	control.Store
	CatchUp(ctx context.Context, most time.Duration) error
	Ready(context.Context) error
	Health() store.Health
	Close() error
}

// leaderWait is how long a start waits to hear of a leader. Without one it starts with what
// this node knows.
const leaderWait = 3 * time.Second

// openState opens the replicated state and makes use of it.
func (d *Daemon) openState(ctx context.Context, precheck func(dataplane.Gateway) error) error {
	s, err := store.Open(ctx, store.Config{
		Dir:   d.flags.Data,
		Log:   d.part("store"),
		Wrote: d.metrics.Wrote, Snapped: d.metrics.Snapped,
		Fatal: func(err error) {
			select {
			case d.fatal <- err:
			default: // the first is the cause
			}
		},
	})
	if err != nil {
		return err
	}
	d.store = s
	return d.useState(ctx, precheck)
}

// useState starts from the state that this node has, whoever leads. At the first start it
// leads, and makes all that is needed, but not before precheck has found that the plane can
// carry it.
func (d *Daemon) useState(ctx context.Context, precheck func(dataplane.Gateway) error) error {
	switch err := d.store.CatchUp(ctx, leaderWait); {
	case errors.Is(err, store.ErrNoLeader):
		d.log.Warn("no gateway leads: starting with what this one knows; nothing can be changed and nobody can sign in until one does", "what", "leader.none", "index", d.store.State().View().Index())
	case err != nil:
		return fmt.Errorf("waiting for the state to be ready: %w", err)
	}
	settings, exists := d.store.State().View().Settings()
	if !exists {
		if err := d.store.Ready(ctx); err != nil {
			return fmt.Errorf("waiting for the state to be ready: %w", err)
		}
		settings, exists = d.store.State().View().Settings()
	}
	var err error
	if !exists {
		if settings.Network, err = control.Networks(d.flags.network); err != nil {
			return err
		}
		d.flags.network = settings.Network
		if err := precheck(dataplane.Gateway{Listen: d.flags.wireguard, Addrs: settings.GatewayAddrs(), Network: settings.Network}); err != nil {
			return err
		}
	}
	key, err := control.LoadSealingKey(d.flags.SealingKey, exists)
	if errors.Is(err, fs.ErrPermission) {
		return remedy(err, "--sealing-key")
	}
	if err != nil {
		return err
	}
	if d.sealer, err = control.NewSealer(key); err != nil {
		return err
	}
	if exists {
		gateway, err := d.gateway(settings)
		if errors.Is(err, control.ErrSealed) {
			return fmt.Errorf("the sealing key %s is not that of the data folder %s (%w): name the right one with --sealing-key", d.flags.SealingKey, d.flags.Data, err)
		}
		if err != nil {
			return err
		}
		if err := precheck(gateway); err != nil {
			return err
		}
	}
	_, err = control.Bootstrap(ctx, d.store, d.sealer, d.bootstrap(exists))
	if e, ok := errors.AsType[*control.Error](err); exists && ok && e.Kind() == control.KindNoLeader {
		d.unsaid, err = true, nil
	}
	if err != nil {
		return err
	}
	d.service = control.New(control.Config{
		Store: d.store, Gateway: d, Sealer: d.sealer, Now: time.Now, Version: version, Log: d.part("control"), Pinned: d.flags.pinned(), Attention: d.attention,
		Locals: d.locals, Targets: d.targets,
	})
	if err := d.openACME(); err != nil {
		return err
	}
	if d.tls, err = d.service.TLSConfig(d.flags.Cert, d.flags.Key); err != nil {
		return remedy(err, "--cert and --key")
	}
	return nil
}

// sayFlags changes what a start changes (settings as flags ask for, the state's level) once
// this node leads.
func (d *Daemon) sayFlags(ctx context.Context) {
	d.log.Info("what this start would change (settings by flags, the level of the state) waits until this gateway leads", "what", "leader.none")
	err := d.store.Ready(ctx)
	if err == nil {
		_, err = control.Bootstrap(ctx, d.store, d.sealer, d.bootstrap(true))
	}
	if err != nil && ctx.Err() == nil {
		d.log.Warn("the settings could not be changed as the flags ask for", "what", "settings.set", "why", err)
	}
}

func (d *Daemon) bootstrap(exists bool) control.BootstrapConfig {
	c := control.BootstrapConfig{Version: version, Endpoint: d.flags.Endpoint, URL: d.flags.URL, Network: d.flags.network}
	if a, ok := d.public.Addr().(*net.TCPAddr); ok {
		c.PortalPort = uint16(a.Port)
	}
	if d.flags.routes != nil {
		c.Routes = append([]netip.Prefix{}, *d.flags.routes...) // not nil: "none" takes them away
	}
	if c.Endpoint == "" && !exists {
		c.Endpoint = netip.AddrPortFrom(ownAddress(), d.flags.wireguard.Port()).String()
	}
	return c
}

// gateway is the tunnel's near end for the reconciler.
func (d *Daemon) gateway(s peers.Settings) (dataplane.Gateway, error) {
	key, err := d.sealer.GatewayKey(s)
	if err != nil {
		return dataplane.Gateway{}, err
	}
	return dataplane.Gateway{
		PrivateKey: key,
		Listen:     d.flags.wireguard,
		Addrs:      s.GatewayAddrs(),
		Network:    s.Network,
		Routes:     s.Routes,
		Masquerade: s.Masquerade,
		MTU:        int(s.MTU),
	}, nil
}
