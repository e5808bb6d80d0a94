package line

import (
	"context"
	"fmt"
	"time"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// gather is how long the many events of one change are waited for.
const gather = 100 * time.Millisecond

// Watch calls changed after the kernel has told of an interface or a route that changed,
// until ctx ends. It returns when it hears.
func Watch(ctx context.Context, changed func()) error {
	sock, err := nl.Subscribe(unix.NETLINK_ROUTE, unix.RTNLGRP_LINK, unix.RTNLGRP_IPV4_ROUTE, unix.RTNLGRP_IPV6_ROUTE)
	if err != nil {
		return fmt.Errorf("subscribing to changes of interfaces and routes: %w", err)
	}
	events := make(chan struct{}, 1)
	go func() {
		for ctx.Err() == nil {
			// An error is of lost messages (ENOBUFS), or of the socket that is closed below.
			if _, _, err := sock.Receive(); err != nil && ctx.Err() == nil {
				time.Sleep(gather)
			}
			select {
			case events <- struct{}{}:
			default:
			}
		}
	}()
	go func() {
		defer sock.Close()
		for {
			select {
			case <-ctx.Done():
				return
			case <-events:
			}
			select {
			case <-ctx.Done():
				return
			case <-time.After(gather):
			}
			changed()
		}
	}()
	return nil
}
