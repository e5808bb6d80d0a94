package filter

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/mdlayher/netlink"
	"github.com/ti-mo/conntrack"
	"golang.org/x/sys/unix"

	"vpnd/internal/dataplane"
)

// tracked is a flow of the tunnel that conntrack has; its destination is where it really
// goes. The tuples of both directions, as
// NAT has made them, are in entry.
type tracked struct {
	dataplane.Flow
	mark  uint32
	entry conntrack.Flow
}

// fewMarks is how many marks the kernel is asked for one by one. Each time it looks at all
// its flows, so with more it is cheaper to be told them all.
const fewMarks = 16

// listLocked lists the flows that c cuts, but for the portal's, which it spares. The
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
	marks := slices.Compact(slices.Sorted(slices.Values(slices.Concat(c.dead, c.broken))))
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
		if fl.mark == 0 || fl.mark == flowPortal || !(f.inNetwork(fl.Src) || f.inNetwork(fl.Dst)) || !cuts(fl) {
			continue
		}
		out = append(out, fl)
	}
	return out, nil
}

// kill makes conntrack forget flows: what comes of them now is judged as a new flow.
func kill(flows []tracked) error {
	if len(flows) == 0 {
		return nil
	}
	conn, err := dialConntrack()
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	for _, fl := range flows {
		if err := conn.Delete(fl.entry); err != nil && !isNotExist(err) {
			return fmt.Errorf("delete a flow from %s to %s: %w", fl.Src, fl.Dst, err)
		}
	}
	return nil
}

func dialConntrack() (*conntrack.Conn, error) {
	conn, err := conntrack.Dial(&netlink.Config{})
	if err != nil {
		return nil, fmt.Errorf("open conntrack: %w", err)
	}
	return conn, nil
}

// isNotExist: the flow ended by itself meanwhile.
func isNotExist(err error) bool { return errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ENOENT) }
