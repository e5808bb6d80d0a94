package filter

import (
	"context"
	"fmt"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"

	"vpnd/internal/dataplane"
	"vpnd/internal/dataplane/linux/run"
)

// webPort is where devices find the portal, on the gateway's addresses.
const webPort = 80

// Permits tells whether the first packet of a new flow would pass at this moment. It
// reads the table from the kernel; of its own memory it uses what routing knows: which
// addresses lie in the tunnel, and which are the gateway's.
//
// Where the table is gone, nothing is forwarded: the routing rules prohibit what does not
// carry the table's mark. What is addressed to the gateway itself they do not see, so
// that passes.
func (f *Filter) Permits(ctx context.Context, flow dataplane.Flow) (bool, error) {
	// Held all along, so that no change of our own comes between what is read.
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return false, ErrClosed
	}
	k, err := run.Open(ctx, tableName)
	if err != nil {
		return false, err
	}
	defer k.Close()
	w := way{iface: f.c.Interface, mark: f.c.Mark, portal: f.c.PortalPort, gateway: f.gateway}
	if there, err := k.Exists(); err != nil {
		return false, err
	} else if !there {
		return w.withoutTable(flow), nil
	}
	ok, err := w.permits(k, flow)
	if err != nil {
		return false, fmt.Errorf("judging a packet from %s to %s by table %s: %w", flow.Src, flow.Dst, tableName, err)
	}
	return ok, nil
}

// way is how the host's routing leads packets past the table's hooks.
type way struct {
	iface   string
	mark    uint32
	portal  uint16
	gateway dataplane.Gateway
}

func (w way) inTunnel(a netip.Addr) bool {
	return slices.ContainsFunc(w.gateway.Network, func(p netip.Prefix) bool { return p.Contains(a) })
}

func (w way) own(a netip.Addr) bool { return slices.Contains(w.gateway.Addrs, a) }

// concerns says whether a flow goes through the tunnel.
func (w way) concerns(f dataplane.Flow) bool {
	if f.Src.Is4() != f.Dst.Is4() {
		return false
	}
	if w.own(f.Src) {
		return w.inTunnel(f.Dst) && !w.own(f.Dst)
	}
	return w.inTunnel(f.Src) || w.inTunnel(f.Dst)
}

// withoutTable says what passes when the table is gone.
func (w way) withoutTable(f dataplane.Flow) bool {
	return w.concerns(f) && (w.own(f.Dst) || w.own(f.Src))
}

// permits follows the first packet of a flow through the hooks.
func (w way) permits(from run.Reader, f dataplane.Flow) (ok bool, err error) {
	if !w.concerns(f) {
		return false, nil // no business of the tunnel's
	}
	m := &run.Machine{From: from, Packet: run.Packet{Flow: f, Dst: f.Dst, Port: f.DstPort}}
	defer func() {
		if err == nil && m.Doubt != nil { // our own rules leave none
			ok, err = false, m.Doubt
		}
	}()
	p := &m.Packet
	if w.own(f.Src) {
		p.OIF = w.iface
		fate, err := m.Hook("output", unix.NF_INET_LOCAL_OUT)
		return fate == run.Accepted, err
	}
	p.IIF = run.Elsewhere
	if w.inTunnel(f.Src) {
		p.IIF = w.iface
	}
	for _, chain := range []string{"redirect", "prerouting"} {
		if fate, err := m.Hook(chain, unix.NF_INET_PRE_ROUTING); fate != run.Accepted || err != nil {
			return false, err
		}
	}
	if p.Rewritten && w.own(p.Dst) && p.Port == w.portal && !(w.own(f.Dst) && f.DstPort == webPort) {
		return false, nil // caught by the portal, which stands in for what was asked for
	}
	if w.own(p.Dst) {
		fate, err := m.Hook("input", unix.NF_INET_LOCAL_IN)
		return fate == run.Accepted, err
	}
	if p.Mark&w.mark == 0 {
		return false, nil // the routing rules prohibit it
	}
	p.OIF = run.Elsewhere
	if w.inTunnel(p.Dst) {
		p.OIF = w.iface
	}
	fate, err := m.Hook("forward", unix.NF_INET_FORWARD)
	return fate == run.Accepted, err
}
