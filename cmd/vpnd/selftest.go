package main

import (
	"context"
	"net/netip"
	"sync"
	"time"

	"vpnd/internal/dataplane"
	"vpnd/internal/doctor/selftest"
	"vpnd/peers"
)

// selfTests are tests whose peers nobody is to take for devices.
type selfTests struct {
	one  sync.Mutex // at a time
	mu   sync.Mutex
	keys map[dataplane.Key]time.Time // since when
}

// hidden is how long readings may show a peer that is gone: a self-test lasts a minute, and
// a plane may keep a reading for some seconds.
const hidden = 2 * time.Minute

func (t *selfTests) add(k dataplane.Key) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.keys == nil {
		t.keys = map[dataplane.Key]time.Time{}
	}
	for k, since := range t.keys {
		if time.Since(since) > hidden {
			delete(t.keys, k)
		}
	}
	t.keys[k] = time.Now()
}

// hide takes self-tests out of readings: this process's, and those that the state has of others.
func (t *selfTests) hide(stats map[dataplane.Key]dataplane.PeerStats, v *peers.View) {
	for x := range v.SelfTests() {
		delete(stats, dataplane.Key(x.PublicKey))
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	for k := range t.keys {
		delete(stats, k)
	}
}

// selfTestWait bounds all of a self-test, the plane's and the log's part included.
const selfTestWait = 20 * time.Second

// selfTest tries this gateway as a device of this host would.
func (d *Daemon) selfTest(ctx context.Context) error {
	d.tests.one.Lock()
	defer d.tests.one.Unlock()
	ctx, stop := context.WithTimeout(ctx, selfTestWait)
	defer stop()
	private, public, err := selftest.NewKey()
	if err != nil {
		return err
	}
	d.tests.add(dataplane.Key(public))
	settings, _ := d.store.State().View().Settings()
	g := selftest.Gateway{PublicKey: settings.PublicKey, At: here(d.flags.wireguard), Page: settings.GatewayAddrs()[0]}
	return d.service.SelfTest(ctx, peers.Key(public), func(ctx context.Context, addrs []netip.Addr) error {
		return selftest.Run(ctx, g, private, addrs)
	})
}

// here is where a program of this host reaches what listens at a.
func here(a netip.AddrPort) netip.AddrPort {
	if a.Addr().IsUnspecified() { // then IPv4 is among them, and a host has its loopback
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), a.Port())
	}
	return a
}
