package netstack

import (
	"errors"
	"net"
	"syscall"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/transport/udp"
	"gvisor.dev/gvisor/pkg/waiter"

	"vpnd/internal/dataplane/relay"
)

// touch notes that a packet of f has passed.
func (f *flow) touch(forwards bool, now time.Time) {
	f.seen.Store(now.UnixNano())
	if f.key.proto != protoUDP {
		return
	}
	if !forwards {
		f.answered.Store(true)
	}
	if f.answered.Load() && !f.stream.Load() && now.UnixNano()-f.began > int64(relay.UDPYoung) {
		f.stream.Store(true)
	}
}

// acceptUDP connects a flow that the filter has let in. The stack calls it with the
// first datagram and waits: dialling UDP sends nothing and does not block.
func (p *Plane) acceptUDP(r *udp.ForwarderRequest) {
	f := p.flows.get(keyOfID(r.ID(), protoUDP))
	if f == nil || f.dead.Load() || f.kind != kindResource && f.kind != kindService {
		return
	}
	dial := func() (halfCloser, error) { return p.dialHost(p.ctx, "udp", f.key.dst) }
	if f.kind == kindService {
		dial = func() (halfCloser, error) { return p.dialService(p.ctx, "udp", f) }
	}
	host, err := dial()
	if err != nil {
		p.unreachable(f)
		p.cut(f)
		return
	}
	if !f.onCut(func() { host.Close() }) {
		host.Close()
		return
	}
	var wq waiter.Queue
	ep, terr := r.CreateEndpoint(&wq)
	if terr != nil {
		p.cut(f)
		return
	}
	device := gonet.NewUDPConn(&wq, ep)
	if !f.onCut(func() { device.Close() }) {
		device.Close()
		return
	}
	go p.copyUDP(f, host, device)
	go p.copyUDP(f, device, host)
}

// copyUDP copies datagrams until the flow is cut. The janitor cuts it when it is idle.
func (p *Plane) copyUDP(f *flow, dst, src net.Conn) {
	defer p.cut(f)
	b := make([]byte, 64<<10)
	for {
		n, err := src.Read(b)
		if err == nil {
			_, err = dst.Write(b[:n])
		}
		switch {
		case err == nil:
		case errors.Is(err, syscall.ECONNREFUSED):
			p.unreachable(f) // the host was told so by ICMP
		case errors.Is(err, syscall.EMSGSIZE), errors.Is(err, syscall.ENOBUFS):
			// This datagram is lost; the next may not be.
		default:
			return
		}
	}
}
