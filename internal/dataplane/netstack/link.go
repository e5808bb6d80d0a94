package netstack

import (
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.zx2c4.com/wireguard/tun"
	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"

	"vpnd/internal/dataplane/line"
)

const (
	// linkBatch is how many packets WireGuard takes at once; more than 128 it does not.
	linkBatch = 128
	linkQueue = 1024
)

// link joins WireGuard and the stack: WireGuard sees a tun.Device, the stack a
// LinkEndpoint, and the filter stands between.
type link struct {
	plane  *Plane
	events chan tun.Event
	out    chan outPacket // to WireGuard
	resets resets         // those that found it full
	closed chan struct{}
	once   sync.Once
	mtu    atomic.Int32

	mu         sync.RWMutex
	dispatcher stack.NetworkDispatcher
}

// outPacket is a packet on its way to WireGuard: the stack's, which is still to be
// judged, or bytes that were judged or made by the filter itself.
type outPacket struct {
	pkt *stack.PacketBuffer
	raw []byte
}

func newLink(p *Plane) *link {
	l := &link{
		plane:  p,
		events: make(chan tun.Event, 1),
		out:    make(chan outPacket, linkQueue),
		closed: make(chan struct{}),
		resets: resets{more: make(chan struct{}, 1)},
	}
	l.mtu.Store(line.Usual)
	return l
}

// setMTU changes the tunnel's MTU and says whether it was another one. The stack asks for it
// with each packet; WireGuard, which pads packets up to it, is told.
func (l *link) setMTU(mtu int) bool {
	if l.mtu.Swap(int32(mtu)) == int32(mtu) {
		return false
	}
	select {
	case l.events <- tun.EventMTUUpdate:
	default: // one is on its way
	}
	return true
}

// Write takes packets that WireGuard has decrypted (tun.Device).
func (l *link) Write(bufs [][]byte, offset int) (int, error) {
	now := time.Now()
	for _, b := range bufs {
		l.plane.receive(b[offset:], now)
	}
	return len(bufs), nil
}

// receive filters one packet from a device and carries out the verdict.
func (p *Plane) receive(b []byte, now time.Time) {
	pk, ok := parse(b)
	if !ok {
		return
	}
	a, f := p.inbound(&pk, now)
	switch a {
	case deliver:
		p.link.inject(&pk)
	case forward:
		if raw := forwarded(&pk); raw != nil {
			if pk.proto == protoTCP && pk.piece != laterPiece {
				clampMSS(raw, pk.l4, int(p.link.mtu.Load()))
			}
			p.link.send(raw)
		}
	case refuse:
		p.refuse(&pk)
	case echo:
		if pk.piece == whole {
			p.link.send(echoReply(&pk))
		}
	case ping:
		if pk.piece == whole {
			p.ping(f, &pk)
		}
	}
}

// inject hands a packet to the stack, which keeps a copy.
func (l *link) inject(pk *packet) {
	l.mu.RLock()
	d := l.dispatcher
	l.mu.RUnlock()
	if d == nil {
		return
	}
	pb := stack.NewPacketBuffer(stack.PacketBufferOptions{Payload: buffer.MakeWithData(pk.b)})
	defer pb.DecRef()
	if pk.dst.Is4() {
		d.DeliverNetworkPacket(header.IPv4ProtocolNumber, pb)
	} else {
		d.DeliverNetworkPacket(header.IPv6ProtocolNumber, pb)
	}
}

// send queues a packet for WireGuard that needs no verdict. It drops when WireGuard
// does not keep up, as a network would.
func (l *link) send(raw []byte) {
	select {
	case l.out <- outPacket{raw: raw}:
	default:
	}
}

// WritePackets takes packets from the stack (stack.LinkWriter).
func (l *link) WritePackets(pkts stack.PacketBufferList) (int, tcpip.Error) {
	n := 0
	for _, pkt := range pkts.AsSlice() {
		select {
		case l.out <- outPacket{pkt: pkt.IncRef()}:
			n++
		default:
			// The reference is taken, whichever case is.
			if isReset(pkt) {
				l.resets.add(outPacket{pkt: pkt})
				n++
				continue
			}
			pkt.DecRef()
			return n, nil
		}
	}
	return n, nil
}

// Read gives WireGuard packets to encrypt (tun.Device). The stack's packets are judged
// here, as late as can be.
func (l *link) Read(bufs [][]byte, sizes []int, offset int) (int, error) {
	n := 0
	for n == 0 {
		select {
		case o := <-l.out:
			n += l.fill(o, bufs, sizes, offset, n)
		case <-l.resets.more:
			for _, o := range l.resets.take(len(bufs)) {
				n += l.fill(o, bufs, sizes, offset, n)
			}
		case <-l.closed:
			return 0, os.ErrClosed
		}
		for more := true; more && n < len(bufs); {
			select {
			case o := <-l.out:
				n += l.fill(o, bufs, sizes, offset, n)
			default:
				more = false
			}
		}
	}
	return n, nil
}

// fill copies o into buffer n if it may pass, and returns how many buffers it took.
func (l *link) fill(o outPacket, bufs [][]byte, sizes []int, offset, n int) int {
	b := bufs[n][offset:]
	if o.raw != nil {
		sizes[n] = copy(b, o.raw)
		return 1
	}
	size := 0
	for _, s := range o.pkt.AsSlices() {
		size += copy(b[size:], s)
	}
	o.pkt.DecRef()
	pk, ok := parse(b[:size])
	if !ok || !l.plane.outbound(&pk, time.Now()) {
		return 0
	}
	sizes[n] = size
	return 1
}

// Close ends Read (tun.Device); the stack closes its side by itself.
func (l *link) shut() error {
	l.once.Do(func() {
		close(l.closed)
		close(l.events)
	})
	return nil
}

// tunDevice is the link as WireGuard sees it.
type tunDevice struct{ *link }

func (tunDevice) File() *os.File             { return nil }
func (d tunDevice) MTU() (int, error)        { return int(d.mtu.Load()), nil }
func (tunDevice) Name() (string, error)      { return "netstack", nil }
func (d tunDevice) Events() <-chan tun.Event { return d.events }
func (d tunDevice) Close() error             { return d.shut() }
func (tunDevice) BatchSize() int             { return linkBatch }

// linkEndpoint is the link as the stack sees it.
type linkEndpoint struct{ *link }

func (l linkEndpoint) MTU() uint32                                { return uint32(l.mtu.Load()) }
func (linkEndpoint) SetMTU(uint32)                                {}
func (linkEndpoint) MaxHeaderLength() uint16                      { return 0 }
func (linkEndpoint) LinkAddress() tcpip.LinkAddress               { return "" }
func (linkEndpoint) SetLinkAddress(tcpip.LinkAddress)             {}
func (linkEndpoint) Capabilities() stack.LinkEndpointCapabilities { return 0 }
func (linkEndpoint) Wait()                                        {}
func (linkEndpoint) ARPHardwareType() header.ARPHardwareType      { return header.ARPHardwareNone }
func (linkEndpoint) AddHeader(*stack.PacketBuffer)                {}
func (linkEndpoint) ParseHeader(*stack.PacketBuffer) bool         { return true }
func (linkEndpoint) Close()                                       {}
func (linkEndpoint) SetOnCloseAction(func())                      {}

func (l linkEndpoint) Attach(d stack.NetworkDispatcher) {
	l.mu.Lock()
	l.dispatcher = d
	l.mu.Unlock()
}

func (l linkEndpoint) IsAttached() bool {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.dispatcher != nil
}

var (
	_ tun.Device         = tunDevice{}
	_ stack.LinkEndpoint = linkEndpoint{}
)
