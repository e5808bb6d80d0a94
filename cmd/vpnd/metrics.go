package main

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"time"

	"golang.org/x/sync/errgroup"

	"vpnd/internal/accept"
	"vpnd/internal/dataplane"
	"vpnd/internal/metrics"
	"vpnd/internal/store"
	"vpnd/peers"
	"vpnd/portal"
)

// newMetrics counts from the start on, whether or not anybody reads it.
func (d *Daemon) newMetrics() *metrics.Metrics {
	return metrics.New(metrics.Sources{
		Version: version,
		View:    func() *peers.View { return d.store.State().View() },
		Applied: func() uint64 { return d.rec.Applied() },
		Wait:    func(ctx context.Context, index uint64) error { return d.rec.Wait(ctx, index) },
		Turns:   func() bool { return d.turns(healthy) },
		Raft:    func() store.Health { return d.store.Health() },
		Stats:   func(ctx context.Context) (dataplane.Stats, error) { return d.Stats(ctx) },
		CertEnd: d.certificateEnd,
		Now:     time.Now,
	})
}

// healthy is how long our loops may be silent before /healthz says so: half of the unit's
// WatchdogSec, as the watchdog has it.
const healthy = 15 * time.Second

func (d *Daemon) certificateEnd() (time.Time, error) {
	c, err := d.leaf()
	if err != nil {
		return time.Time{}, err
	}
	return c.NotAfter, nil
}

// leaf is the portal's certificate as an ordinary client gets it.
func (d *Daemon) leaf() (*x509.Certificate, error) {
	c, err := d.tls.GetCertificate(nil)
	if err != nil {
		return nil, err
	}
	if c.Leaf == nil {
		return nil, errors.New("the certificate was not read")
	}
	return c.Leaf, nil
}

// reserveMetrics takes the port of --metrics before anything on the host is changed.
func (d *Daemon) reserveMetrics() error {
	if d.flags.Metrics == "" {
		return nil
	}
	l, err := net.Listen("tcp", d.flags.Metrics)
	if err != nil {
		return portError("--metrics", "TCP", d.flags.Metrics, err)
	}
	d.scrapes = accept.Limit(l, accept.Limits{Name: "metrics", All: maxScrapes}, d.part("metrics"))
	return nil
}

// maxScrapes bounds the connections to --metrics.
const maxScrapes = 16

func (d *Daemon) serveMetrics(ctx context.Context, g *errgroup.Group) {
	if d.scrapes == nil {
		return
	}
	s := portal.NewServer(d.metrics.Handler(), d.part("metrics"))
	context.AfterFunc(ctx, func() { s.Close() })
	g.Go(func() error {
		if err := s.Serve(d.scrapes); ctx.Err() == nil {
			return fmt.Errorf("serving metrics on %s: %w", d.scrapes.Addr(), err)
		}
		return nil
	})
}

// countEvents feeds the metrics, each line of the audit log once the plane has carried it out.
func (d *Daemon) countEvents(ctx context.Context, view *peers.View) {
	d.follow(ctx, view, func(_ *peers.View, e peers.Entry) {
		if d.rec.Wait(ctx, e.Index) == nil {
			d.metrics.Event(e)
		}
	})
}
