package filter

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"time"

	"github.com/mdlayher/netlink"
	"github.com/ti-mo/conntrack"
	"golang.org/x/sys/unix"

	"vpnd/acl/rules"
	"vpnd/internal/dataplane"
)

// flow is a tracked flow of the tunnel.
type flow struct {
	src, dst netip.Addr // of its first packet
	proto    uint8
	port     uint16
	mark     uint32
}

func dialConntrack() (*conntrack.Conn, error) {
	conn, err := conntrack.Dial(&netlink.Config{})
	if err != nil {
		return nil, fmt.Errorf("open conntrack: %w", err)
	}
	return conn, nil
}

// killLocked deletes the tunnel's flows for which dead says so, of those with the given
// marks (nil: all); the portal's it spares. The kernel looks the marks up. It could
// delete by mark as well, but others use marks, too, and their flows are not ours.
func (f *Filter) killLocked(marks []uint32, dead func(flow) bool) error {
	conn, err := dialConntrack()
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	var all []conntrack.Flow
	if marks == nil {
		if all, err = conn.Dump(nil); err != nil {
			return fmt.Errorf("list flows: %w", err)
		}
	}
	for _, m := range marks {
		some, err := conn.DumpFilter(conntrack.Filter{Mark: m, Mask: 0xffffffff}, nil)
		if err != nil {
			return fmt.Errorf("list flows with mark %#x: %w", m, err)
		}
		all = append(all, some...)
	}
	for _, c := range all {
		fl := flow{
			src: c.TupleOrig.IP.SourceAddress, dst: c.TupleOrig.IP.DestinationAddress,
			proto: c.TupleOrig.Proto.Protocol, mark: c.Mark,
		}
		if hasPorts(fl.proto) {
			fl.port = c.TupleOrig.Proto.DestinationPort
		}
		if fl.mark == 0 || fl.mark == flowPortal || !(f.inNetworkLocked(fl.src) || f.inNetworkLocked(fl.dst)) || !dead(fl) {
			continue
		}
		if err := conn.Delete(c); err != nil && !isNotExist(err) {
			return fmt.Errorf("delete a flow from %s to %s: %w", fl.src, fl.dst, err)
		}
	}
	return nil
}

func (f *Filter) inNetworkLocked(a netip.Addr) bool {
	for _, p := range f.gateway.Network {
		if p.Contains(a) {
			return true
		}
	}
	return false
}

// killRefusedLocked deletes the flows that what is in force now does not allow.
func (f *Filter) killRefusedLocked(now time.Time) error {
	err := f.killLocked(nil, func(fl flow) bool { return !f.aliveLocked(fl, now) })
	if err != nil {
		return fmt.Errorf("ending flows that are no longer allowed: %w", err)
	}
	return nil
}

// aliveLocked says whether a flow may go on: by its mark it belongs to a chain of codes,
// and it is allowed if some grant's freshness is longer than each gap in that chain.
func (f *Filter) aliveLocked(fl flow, now time.Time) bool {
	p := rules.Packet{
		Src: fl.src, Dst: fl.dst, Proto: fl.proto, DstPort: fl.port,
		SrcSession: f.sessions[fl.src].worth(), DstSession: f.sessions[fl.dst].worth(),
	}
	if _, ok := f.devices[fl.src]; ok {
		p.SrcSession = f.sessions[fl.src].openedBy(fl.mark, now)
	} else {
		p.DstSession = f.sessions[fl.dst].openedBy(fl.mark, now)
	}
	return f.policy.Verdict(p, now).Allow
}

// worth is the session as the policy sees it.
func (s session) worth() rules.Session {
	if len(s.codes) == 0 {
		return rules.Session{}
	}
	return rules.Session{Until: s.until, Code: s.codes[len(s.codes)-1].At}
}

// openedBy is what the session is worth to a flow with this mark: one whose code is as
// old as the longest gap since the code that the mark names.
func (s session) openedBy(mark uint32, now time.Time) rules.Session {
	i := slices.IndexFunc(s.codes, func(c dataplane.Code) bool { return c.Serial == mark })
	if i < 0 {
		return rules.Session{}
	}
	gap := now.Sub(s.codes[len(s.codes)-1].At)
	for i++; i < len(s.codes); i++ {
		gap = max(gap, s.codes[i].At.Sub(s.codes[i-1].At))
	}
	return rules.Session{Until: s.until, Code: now.Add(-gap)}
}

// isNotExist: the flow ended by itself meanwhile.
func isNotExist(err error) bool { return errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ENOENT) }
