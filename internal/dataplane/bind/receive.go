package bind

import (
	"errors"
	"net"
	"time"

	"golang.zx2c4.com/wireguard/conn"
)

const (
	// readBatch is how many messages are read at once; with UDP_GRO each may be up to 64
	// datagrams.
	readBatch = 16
	// readSize holds the largest message.
	readSize = 1 << 16
	// retryAfter is the pause after a failed read: without memory, for example.
	retryAfter = 10 * time.Millisecond
)

// receiver reads a socket's messages and hands out their datagrams. One goroutine at a
// time uses it.
type receiver struct {
	pc   packetConn
	msgs []message
	left []message // of msgs: read, and not handed out yet

	from    *Endpoint // the sender of left[0], if it has been looked at
	rest    []byte    // of left[0]; nil: it has not been looked at
	segment int       // the size of its datagrams
}

func newReceiver(pc packetConn) *receiver {
	r := &receiver{pc: pc, msgs: make([]message, readBatch)}
	data, oob := make([]byte, readBatch*readSize), make([]byte, readBatch*controlSize)
	for i := range r.msgs {
		r.msgs[i].Buffers = [][]byte{data[i*readSize : (i+1)*readSize]}
		r.msgs[i].OOB = oob[i*controlSize : (i+1)*controlSize]
	}
	return r
}

// receive is a conn.ReceiveFunc.
func (r *receiver) receive(bufs [][]byte, sizes []int, eps []conn.Endpoint) (int, error) {
	for len(r.left) == 0 {
		n, err := r.pc.ReadBatch(r.msgs, 0)
		switch {
		case errors.Is(err, net.ErrClosed):
			return 0, net.ErrClosed
		case err != nil:
			time.Sleep(retryAfter) // wireguard-go would give up for good
		default:
			r.left, r.from = r.msgs[:n], nil
		}
	}
	n := 0
	for n < len(bufs) && len(r.left) > 0 {
		if r.rest == nil {
			r.look(&r.left[0])
		}
		if len(r.rest) > 0 {
			size := min(r.segment, len(r.rest))
			sizes[n] = copy(bufs[n], r.rest[:size])
			eps[n] = r.from
			r.rest = r.rest[size:]
			n++
		}
		if len(r.rest) == 0 {
			r.left, r.rest = r.left[1:], nil
		}
	}
	return n, nil
}

// look begins with a message.
func (r *receiver) look(m *message) {
	a := parseControl(m.OOB[:m.NN])
	r.rest = m.Buffers[0][:m.N]
	r.segment = max(m.N, 1)
	if a.segment > 0 {
		r.segment = a.segment
	}
	from := m.Addr.(*net.UDPAddr).AddrPort()
	if r.from != nil && r.from.same(from, a) {
		return
	}
	r.from = NewEndpoint(from, a.to)
	if r.from.src.IsLinkLocalUnicast() {
		r.from.ifindex = a.ifindex
	}
}
