package main

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"vpnd/internal/control"
	"vpnd/internal/dataplane"
	"vpnd/internal/reconcile"
	"vpnd/internal/store"
	"vpnd/peers"
)

// brokenPlane fails where the test says so, and counts calls.
type brokenPlane struct {
	set    func(context.Context) error
	listen error
	calls  atomic.Int64
	closed atomic.Bool
}

func (p *brokenPlane) Set(ctx context.Context, _ dataplane.State) error {
	p.calls.Add(1)
	return p.set(ctx)
}
func (p *brokenPlane) Update(context.Context, dataplane.Change) error { p.calls.Add(1); return nil }
func (p *brokenPlane) Stats(context.Context, ...dataplane.Key) (dataplane.Stats, error) {
	return dataplane.Stats{}, nil
}
func (p *brokenPlane) Permits(context.Context, dataplane.Flow) (bool, error) { return false, nil }
func (p *brokenPlane) Listen(context.Context) (net.Listener, error)          { return nil, p.listen }
func (p *brokenPlane) Close() error                                          { p.closed.Store(true); return nil }

// daemonOn is a daemon with a state, up to the sockets that it never gets to serve.
func daemonOn(t *testing.T, p *brokenPlane) *Daemon {
	d := &Daemon{flags: &Flags{Data: filepath.Join(t.TempDir(), "data")}, log: slog.New(slog.DiscardHandler), plane: p, fatal: make(chan error, 1)}
	d.metrics = d.newMetrics()
	var err error
	if d.store, err = store.Open(t.Context(), store.Config{Dir: d.flags.Data, Log: d.part("test")}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	})
	if err := d.store.Ready(t.Context()); err != nil {
		t.Fatal(err)
	}
	if d.sealer, err = control.NewSealer(make([]byte, 32)); err != nil {
		t.Fatal(err)
	}
	if _, err := control.Bootstrap(t.Context(), d.store, d.sealer, control.BootstrapConfig{
		Endpoint: "192.0.2.1:51820", Network: []netip.Prefix{netip.MustParsePrefix("10.77.0.0/16")},
	}); err != nil {
		t.Fatal(err)
	}
	d.service = control.New(control.Config{Store: d.store, Gateway: d, Sealer: d.sealer, Now: time.Now})
	d.rec = reconcile.New(reconcile.Config{
		State: d.store.State(), Plane: p, Gateway: d.gateway, PresharedKey: d.sealer.PresharedKey, Now: time.Now, Log: d.part("test"),
	})
	return d
}

// What fails while vpnd starts is what it says, and not that its start was given up.
func TestFatalWhileStarting(t *testing.T) {
	p := &brokenPlane{set: func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }}
	d := daemonOn(t, p)
	disk := errors.New("the disk is full")
	d.fatal <- disk
	if err := d.Run(t.Context()); !errors.Is(err, disk) || errors.Is(err, context.Canceled) {
		t.Errorf("Run said %v", err)
	}
}

// After a failure Run leaves nobody at work who would open again what Close has closed.
func TestNothingWorksAfterRun(t *testing.T) {
	p := &brokenPlane{set: func(context.Context) error { return nil }, listen: errors.New("no such address")}
	d := daemonOn(t, p)
	if err := d.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "no such address") {
		t.Errorf("Run said %v", err)
	}
	before := p.calls.Load()
	if _, _, err := d.store.Propose(t.Context(), peers.Command{At: time.Now(), Body: peers.Note{Action: "test"}}); err != nil {
		t.Fatal(err)
	}
	time.Sleep(200 * time.Millisecond)
	if now := p.calls.Load(); now != before {
		t.Errorf("the plane was told %d more times after Run had returned", now-before)
	}
}
