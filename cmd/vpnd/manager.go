package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

// serveManager speaks with who manages the service: it says that vpnd serves, keeps the
// watchdog quiet and takes SIGHUP (sd_notify(3), systemd.service(5)).
func (d *Daemon) serveManager(ctx context.Context, g *errgroup.Group) error {
	if d.managed {
		hup := make(chan os.Signal, 1)
		signal.Notify(hup, syscall.SIGHUP)
		g.Go(func() error {
			defer signal.Stop(hup)
			for {
				select {
				case <-hup:
					d.reload()
				case <-ctx.Done():
					return nil
				}
			}
		})
	}
	every, err := daemon.SdWatchdogEnabled(false)
	if err != nil {
		return fmt.Errorf("the service manager's watchdog: %w", err)
	}
	if every > 0 {
		g.Go(func() error { d.watchdog(ctx, every); return nil })
	}
	if _, err := daemon.SdNotify(false, daemon.SdNotifyReady); err != nil {
		d.log.Warn("telling the service manager that vpnd is ready", "why", err) // it will act on that
	}
	context.AfterFunc(ctx, func() { daemon.SdNotify(false, daemon.SdNotifyStopping) }) // news, not needed
	return nil
}

// turns says whether vpnd's own loops were seen at work within this time. It asks nothing that
// may wait for somebody else.
func (d *Daemon) turns(within time.Duration) bool { return time.Since(d.rec.Beat()) < within }

// watchdog tells the service manager that vpnd is alive while its own loops turn. It asks
// neither for a quorum nor for the disk: a restart would mend neither.
func (d *Daemon) watchdog(ctx context.Context, every time.Duration) {
	tick := time.NewTicker(every / 4)
	defer tick.Stop()
	for {
		if d.turns(every / 2) {
			daemon.SdNotify(false, daemon.SdNotifyWatchdog) // without it we are restarted, as we should be
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// reload takes over what can change while vpnd runs, and says what cannot.
func (d *Daemon) reload() {
	daemon.SdNotify(false, fmt.Sprintf("%s\nMONOTONIC_USEC=%d", daemon.SdNotifyReloading, monotonicUsec()))
	switch again, err := parse(d.flags.args, io.Discard); {
	case err != nil:
		d.log.Warn("reloading: everything stays as it was", "why", err)
	default:
		d.level.Set(again.level())
		d.log.Info("reloaded the log's level; a given certificate is read again whenever its file changes", "level", again.LogLevel)
		if names := d.flags.changed(again); len(names) > 0 {
			d.log.Warn("these options have changed and need a restart", "what", strings.Join(names, ","))
		}
	}
	daemon.SdNotify(false, daemon.SdNotifyReady)
}

// monotonicUsec is CLOCK_MONOTONIC in microseconds, as sd_notify(3) wants it.
func monotonicUsec() int64 {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &t); err != nil {
		return 0
	}
	return t.Nano() / 1000
}

// underManager says whether a service manager has started this process: systemd says so,
// an init script leaves it without a terminal. Then SIGHUP means reload; in a terminal it
// means that the terminal has gone.
func underManager() bool {
	if os.Getenv("NOTIFY_SOCKET") != "" || os.Getenv("INVOCATION_ID") != "" {
		return true
	}
	tty, err := os.OpenFile("/dev/tty", os.O_RDWR, 0)
	if err != nil {
		return true
	}
	tty.Close()
	return false
}
