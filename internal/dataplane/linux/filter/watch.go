package filter

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"vpnd/internal/dataplane"
	"vpnd/internal/dataplane/linux/nft"
)

// watcher listens to nf_tables' announcements and has the table rebuilt when somebody
// else changed it. Our own changes carry our socket's port id.
type watcher struct {
	f    *Filter
	fd   int
	stop *os.File // its closing end wakes the loop
	done chan struct{}
}

func startWatch(f *Filter) (*watcher, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_NETFILTER)
	if err != nil {
		return nil, fmt.Errorf("open a netlink socket: %w", err)
	}
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: 1 << (unix.NFNLGRP_NFTABLES - 1)}); err != nil {
		_ = unix.Close(fd)
		return nil, fmt.Errorf("listen to nf_tables: %w", err)
	}
	// A transaction of ours is announced element by element.
	_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 32<<20)
	r, w, err := os.Pipe()
	if err != nil {
		_ = unix.Close(fd)
		return nil, err
	}
	wt := &watcher{f: f, fd: fd, stop: w, done: make(chan struct{})}
	go func() {
		defer close(wt.done)
		wt.run(r)
		_ = r.Close()
		_ = unix.Close(fd)
	}()
	return wt, nil
}

// deaf does something of which the kernel tells nobody here: announcing hundreds of
// thousands of elements costs more than adding them. It is for tables that nobody else can
// change meanwhile.
func (w *watcher) deaf(do func() error) error {
	const group = unix.NFNLGRP_NFTABLES
	if err := unix.SetsockoptInt(w.fd, unix.SOL_NETLINK, unix.NETLINK_DROP_MEMBERSHIP, group); err != nil {
		return do()
	}
	err := do()
	if again := unix.SetsockoptInt(w.fd, unix.SOL_NETLINK, unix.NETLINK_ADD_MEMBERSHIP, group); again != nil {
		return errors.Join(err, fmt.Errorf("listen to nf_tables again: %w", again))
	}
	return err
}

func (w *watcher) close() {
	_ = w.stop.Close()
	<-w.done
}

func (w *watcher) run(stop *os.File) {
	fds := []unix.PollFd{{Fd: int32(w.fd), Events: unix.POLLIN}, {Fd: int32(stop.Fd()), Events: unix.POLLIN}}
	buf := make([]byte, 256<<10)
	var foreign []dataplane.Drift
	lost := false
	for {
		// Somebody's transaction is announced in several datagrams: wait for its end.
		timeout := -1
		if len(foreign) > 0 || lost {
			timeout = 20
		}
		n, err := unix.Poll(fds, timeout)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil || fds[1].Revents != 0 {
			return
		}
		if n == 0 {
			if len(foreign) > 0 || w.differs() {
				w.repair(foreign)
			}
			foreign, lost = nil, false
			continue
		}
		n, _, err = unix.Recvfrom(w.fd, buf, 0)
		switch {
		case errors.Is(err, unix.ENOBUFS):
			lost = true // announcements were lost: look for ourselves
		case errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EINTR):
		case err != nil:
			w.f.c.Log.Warn("packet filter: watching nf_tables", "why", err)
			return
		default:
			msgs, err := nft.ParseMessages(buf[:n])
			if err != nil {
				w.f.c.Log.Warn("packet filter: watching nf_tables", "why", err)
			}
			for _, m := range msgs {
				if d, ok := w.drift(m); ok {
					foreign = note(foreign, d)
				}
			}
		}
	}
}

// drift says what an announcement did to our table.
func (w *watcher) drift(m netlink.Message) (dataplane.Drift, bool) {
	if uint16(m.Header.Type)>>8 != unix.NFNL_SUBSYS_NFTABLES || m.Header.PID == w.f.sock.Port || len(m.Data) < 4 || m.Data[0] != nft.Inet {
		return dataplane.Drift{}, false
	}
	attrs, err := netlink.UnmarshalAttributes(m.Data[4:])
	if err != nil {
		return dataplane.Drift{}, false
	}
	// In all of these messages attribute 1 is the table's name, and 2 (a chain's: 3) the
	// name of what is in it.
	str := func(typ uint16) string {
		for _, a := range attrs {
			if a.Type&^unix.NLA_F_NESTED == typ {
				return strings.TrimSuffix(string(bytes.TrimRight(a.Data, "\x00")), ".b")
			}
		}
		return ""
	}
	if str(1) != tableName {
		return dataplane.Drift{}, false
	}
	d := dataplane.Drift{Was: "changed"}
	switch uint16(m.Header.Type) & 0xff {
	case unix.NFT_MSG_NEWTABLE:
		d.What = "table " + tableName
	case unix.NFT_MSG_DELTABLE:
		d.What, d.Was = "table "+tableName, "removed"
	case unix.NFT_MSG_NEWCHAIN:
		d.What, d.Was = "chain "+str(3), "added"
	case unix.NFT_MSG_DELCHAIN:
		d.What, d.Was = "chain "+str(3), "removed"
	case unix.NFT_MSG_NEWRULE:
		d.What, d.Was = "a rule of chain "+str(2), "added"
	case unix.NFT_MSG_DELRULE:
		d.What, d.Was = "a rule of chain "+str(2), "removed"
	case unix.NFT_MSG_NEWSET:
		d.What, d.Was = "set "+str(2), "added"
	case unix.NFT_MSG_DELSET:
		d.What, d.Was = "set "+str(2), "removed"
	case unix.NFT_MSG_NEWSETELEM:
		d.What, d.Was = "an element of set "+str(2), "added"
	case unix.NFT_MSG_DELSETELEM:
		d.What, d.Was = "an element of set "+str(2), "removed"
	default:
		d.What = "table " + tableName
	}
	d.What += " in nftables"
	return d, true
}

// differs says whether the table is not as it should be.
func (w *watcher) differs() bool {
	f := w.f
	difference, err := f.verify()
	if err != nil {
		f.c.Log.Warn("packet filter: reading the table back", "why", err)
	}
	return difference != ""
}

// repair rebuilds the table and reports.
func (w *watcher) repair(drift []dataplane.Drift) {
	f := w.f
	f.mu.Lock()
	if f.closed || f.policy == nil {
		f.mu.Unlock()
		return
	}
	err := f.rebuildLocked(context.Background(), &f.state, f.state.layout(f.baseLocked()), f.now())
	if err != nil {
		f.built = false
		f.c.Log.Warn("packet filter: putting the table right", "why", err)
		time.AfterFunc(500*time.Millisecond, func() { w.repair(drift) })
	}
	f.mu.Unlock()
	if err == nil {
		if len(drift) == 0 {
			drift = []dataplane.Drift{{What: "table " + tableName + " in nftables", Was: "changed"}}
		}
		for _, d := range drift {
			f.c.OnDrift(d)
		}
	}
}

// note adds to a list in which each thing stands once, and a removed table for all that
// was in it.
func note(list []dataplane.Drift, d dataplane.Drift) []dataplane.Drift {
	table := dataplane.Drift{What: "table " + tableName + " in nftables", Was: "removed"}
	switch {
	case slices.Contains(list, table) || slices.Contains(list, d):
		return list
	case d == table:
		return []dataplane.Drift{d}
	case len(list) >= 16:
		return list
	}
	return append(list, d)
}
