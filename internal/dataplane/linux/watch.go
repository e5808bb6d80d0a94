package linux

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"vpnd/internal/dataplane"
)

// startWatching subscribes to what the kernel tells about interfaces, addresses, routes,
// rules and forwarding, and puts right what others change.
func (p *Plane) startWatching() error {
	sock, err := nl.Subscribe(unix.NETLINK_ROUTE,
		unix.RTNLGRP_LINK, unix.RTNLGRP_IPV4_IFADDR, unix.RTNLGRP_IPV6_IFADDR,
		unix.RTNLGRP_IPV4_ROUTE, unix.RTNLGRP_IPV6_ROUTE,
		unix.RTNLGRP_IPV4_RULE, unix.RTNLGRP_IPV6_RULE,
		unix.RTNLGRP_IPV4_NETCONF, unix.RTNLGRP_IPV6_NETCONF)
	if err != nil {
		return fmt.Errorf("subscribing to the kernel's changes: %w", err)
	}
	ctx := p.ctx
	context.AfterFunc(ctx, sock.Close)
	routes := make(chan struct{}, 1)
	p.done.Go(func() { p.receive(ctx, sock, routes) })
	p.done.Go(func() { p.watch(ctx, routes) })
	p.done.Go(p.recall)
	return nil
}

// receive turns the kernel's messages into wake-ups. What they say is not looked at:
// a check reads what is.
func (p *Plane) receive(ctx context.Context, sock *nl.NetlinkSocket, routes chan<- struct{}) {
	for ctx.Err() == nil {
		msgs, _, err := sock.Receive()
		changed := errors.Is(err, unix.ENOBUFS) // messages were lost
		for _, m := range msgs {
			switch m.Header.Type {
			case unix.RTM_NEWROUTE, unix.RTM_DELROUTE, unix.RTM_NEWLINK, unix.RTM_DELLINK:
				changed = true
			}
		}
		if changed {
			select {
			case routes <- struct{}{}:
			default:
			}
		}
		p.wake()
		if err != nil && !changed && ctx.Err() == nil {
			p.c.Log.Warn("hearing of the kernel's changes", "why", err)
			time.Sleep(checkInterval)
		}
	}
}

// settleTime gathers the many events of one change into one check, and bounds what a
// host with busy routing costs.
const settleTime = 50 * time.Millisecond

func (p *Plane) watch(ctx context.Context, routes <-chan struct{}) {
	tick := time.NewTicker(checkInterval)
	defer tick.Stop()
	for {
		poll := false
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			poll = true
		case <-p.poke:
			select {
			case <-ctx.Done():
				return
			case <-time.After(settleTime):
			}
		}
		var device *wgtypes.Device
		var at uint64
		if poll {
			device, at = p.pollDevice()
		}
		p.mu.Lock()
		if p.closed {
			p.mu.Unlock()
			return
		}
		if p.changes != at {
			device = nil // it was read while it was changed: next time
		}
		select {
		case <-routes:
			p.reroute = true
		default:
		}
		drift, err := p.settle(nil, device)
		p.complain("keeping the data plane as it should be", err)
		p.mu.Unlock()
		p.report(drift)
	}
}

// pollDevice reads a kernel device, which tells nobody when it is changed. It does so
// without p.mu, since it takes long when there are many peers; the number of our own
// changes says whether the reading can be compared.
func (p *Plane) pollDevice() (*wgtypes.Device, uint64) {
	p.mu.Lock()
	kernel := p.link != nil && p.link.engine == nil
	wg, at := p.wg, p.changes
	p.mu.Unlock()
	if !kernel {
		return nil, at
	}
	d, err := wg.Device(p.c.Interface)
	if err != nil {
		return nil, at // it is gone, and settle makes it anew
	}
	p.whereabouts.note(d)
	return d, at
}

// report tells what was put right. It must be called without p.mu.
func (p *Plane) report(drift []dataplane.Drift) {
	for _, d := range drift {
		p.c.OnDrift(d)
	}
}
