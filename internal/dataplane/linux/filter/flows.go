package filter

import (
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/mdlayher/netlink"
	"github.com/ti-mo/conntrack"
	"golang.org/x/sys/unix"

	"vpnd/internal/dataplane"
)

// tracked is a flow of the tunnel that conntrack has; its destination is where it really
// goes, or the service address that it asked for. The tuples of both directions, as
// NAT has made them, are in entry.
type tracked struct {
	dataplane.Flow
	mark  uint32
	entry conntrack.Flow
}

// fewMarks is how many marks the kernel is asked for one by one. Each time it looks at all
// its flows, so with more it is cheaper to be told them all.
const fewMarks = 16

// listLocked lists the flows that c cuts. The
// kernel could delete by mark as well, but others use marks, too, and their flows are not
// ours.
func (f *Filter) listLocked(c cut, now time.Time) ([]tracked, error) {
	if c.empty() {
		return nil, nil
	}
	conn, err := dialConntrack()
	if err != nil {
		return nil, err
	}
	defer func() { _ = conn.Close() }()
	var all []conntrack.Flow
	var portal []uint32
	if len(c.gone) > 0 {
		portal = append(portal, flowPortal)
	}
	marks := slices.Compact(slices.Sorted(slices.Values(slices.Concat(c.dead, c.broken, portal))))
	if c.whole() || len(marks) > fewMarks {
		if all, err = conn.Dump(nil); err != nil {
			return nil, fmt.Errorf("list flows: %w", err)
		}
	} else {
		for _, m := range marks {
			some, err := conn.DumpFilter(conntrack.Filter{Mark: m, Mask: 0xffffffff}, nil)
			if err != nil {
				return nil, fmt.Errorf("list flows with mark %#x: %w", m, err)
			}
			all = append(all, some...)
		}
	}
	cuts := c.judge(&f.state, now)
	var out []tracked
	for _, x := range all {
		fl := tracked{
			Flow: dataplane.Flow{Src: x.TupleOrig.IP.SourceAddress, Dst: x.TupleReply.IP.SourceAddress, Proto: x.TupleOrig.Proto.Protocol},
			mark: x.Mark, entry: x,
		}
		if hasPorts(fl.Proto) {
			fl.DstPort = x.TupleReply.Proto.SourcePort
		}
		fl.Flow = f.flowAsked(fl.Flow, netip.AddrPortFrom(x.TupleOrig.IP.DestinationAddress, x.TupleOrig.Proto.DestinationPort))
		if fl.mark == 0 || !(f.inNetwork(fl.Src) || f.inNetwork(fl.Dst)) || !cuts(fl) {
			continue
		}
		out = append(out, fl)
	}
	return out, nil
}

// cutLocked ends the flows that c cuts, and those that could not be ended before. The
// policy and the sessions that are in force refuse them already; now nothing revives them,
// and their ends are told.
func (f *Filter) cutLocked(c cut, now time.Time) error {
	f.uncut = f.uncut.and(c)
	flows, err := f.listLocked(f.uncut, now)
	if err != nil {
		return fmt.Errorf("ending flows that are no longer allowed: %w", err)
	}
	entries := make([]conntrack.Flow, len(flows))
	for i, fl := range flows {
		entries[i] = fl.entry
	}
	f.teller.SetNetwork(f.gateway.Network)
	told, err := f.teller.Cut(entries)
	if err != nil {
		return fmt.Errorf("ending flows that are no longer allowed: %w", err)
	}
	f.cutRelayed(entries)
	f.uncut, f.told = cut{}, told
	return nil
}

// cutRelayed tells the relay of the flows of datagrams to it: no socket is of one of them.
func (f *Filter) cutRelayed(entries []conntrack.Flow) {
	for _, x := range entries {
		t := x.TupleReply
		if f.c.RelayCut != nil && t.Proto.Protocol == unix.IPPROTO_UDP && t.Proto.SourcePort == f.c.RelayUDP && slices.Contains(f.gateway.Addrs, t.IP.SourceAddress.Unmap()) {
			f.c.RelayCut(netip.AddrPortFrom(t.IP.DestinationAddress.Unmap(), t.Proto.DestinationPort))
		}
	}
}

func dialConntrack() (*conntrack.Conn, error) {
	conn, err := conntrack.Dial(&netlink.Config{})
	if err != nil {
		return nil, fmt.Errorf("open conntrack: %w", err)
	}
	return conn, nil
}
