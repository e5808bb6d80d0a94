package bind

import (
	"cmp"
	"errors"
	"net/netip"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.zx2c4.com/wireguard/conn"
)

const (
	// maxSegments is how many datagrams all kernels cut one message into.
	maxSegments = 64
	// maxMessage is the largest message: of 65,535 bytes, IPv4 takes 20 and UDP 8.
	maxMessage = 65535 - 20 - 8
	// plainTime is how long a peer is sent to without segmentation after the kernel has
	// refused that: paths, routes and interfaces change.
	plainTime = time.Second
	// maxPlain bounds the peers that are remembered so.
	maxPlain = 4096
)

// batch is room for the messages of one system call.
type batch struct{ msgs [conn.IdealBatchSize]message }

func newBatch() *batch {
	b := &batch{}
	oob := make([]byte, len(b.msgs)*controlSize)
	for i := range b.msgs {
		b.msgs[i].OOB = oob[i*controlSize : i*controlSize : (i+1)*controlSize]
	}
	return b
}

// fill makes the messages that send bufs to e, and sets every field of each. With gso,
// those of one size go together, the last of them may be smaller.
func (b *batch) fill(bufs [][]byte, e *Endpoint, gso bool) []message {
	src := e.source()
	n := 0
	for ; n < len(b.msgs) && len(bufs) > 0; n++ {
		take := 1
		if gso {
			take = run(bufs)
		}
		oob := b.msgs[n].OOB[:0]
		if src.IsValid() {
			oob = appendSource(oob, src, e.ifindex)
		}
		if take > 1 {
			oob = appendSegment(oob, len(bufs[0]))
		}
		b.msgs[n] = message{Buffers: bufs[:take:take], OOB: oob, Addr: &e.to}
		bufs = bufs[take:]
	}
	return b.msgs[:n]
}

// run is how many of the first bufs go into one message.
func run(bufs [][]byte) int {
	size := len(bufs[0])
	total := size
	n := 1
	for ; n < len(bufs) && n < maxSegments && len(bufs[n-1]) == size; n++ {
		total += len(bufs[n])
		if l := len(bufs[n]); l == 0 || l > size || total > maxMessage {
			break
		}
	}
	return n
}

// empty drops what the messages refer to.
func (b *batch) empty(msgs []message) {
	for i := range msgs {
		msgs[i] = message{OOB: msgs[i].OOB[:0]}
	}
}

// send sends bufs to e.
func (s *socket) send(bufs [][]byte, e *Endpoint) error {
	b := s.batches.Get().(*batch)
	defer s.batches.Put(b)
	gso := s.gso && len(bufs) > 1 && !s.plain.is(e.dst.Addr())
	var first error
	for len(bufs) > 0 {
		had := e.source().IsValid()
		msgs := b.fill(bufs, e, gso)
		sent, err := s.write(msgs)
		for _, m := range msgs[:sent] {
			bufs = bufs[len(m.Buffers):]
		}
		joined := err != nil && len(msgs[sent].Buffers) > 1
		b.empty(msgs)
		switch {
		case err == nil:
		case joined && refusedWhole(err):
			// One by one the kernel takes them, in fragments where it must.
			gso = false
			s.plain.add(e.dst.Addr())
		case had && refusedSource(err):
			e.gone.Store(true)
		case errors.Is(err, syscall.EMSGSIZE):
			bufs = bufs[1:]
			first = cmp.Or(first, err)
		default:
			return cmp.Or(first, err)
		}
	}
	return first
}

// plain are the addresses to which the kernel has lately refused to segment: asking it each
// time costs a copy of the whole batch.
type plain struct {
	some  atomic.Bool
	mu    sync.Mutex
	until map[netip.Addr]time.Time
}

func (p *plain) is(a netip.Addr) bool {
	if !p.some.Load() {
		return false
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	until, ok := p.until[a]
	if ok && time.Now().After(until) {
		delete(p.until, a)
		p.some.Store(len(p.until) > 0)
		ok = false
	}
	return ok
}

func (p *plain) add(a netip.Addr) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.until == nil || len(p.until) >= maxPlain {
		p.until = map[netip.Addr]time.Time{}
	}
	p.until[a] = time.Now().Add(plainTime)
	p.some.Store(true)
}

// write sends msgs and returns how many went out before the error.
func (s *socket) write(msgs []message) (int, error) {
	sent := 0
	for sent < len(msgs) {
		n, err := s.pc.WriteBatch(msgs[sent:], 0)
		sent += max(n, 0)
		if err != nil {
			return sent, err
		}
	}
	return sent, nil
}

// refusedWhole says whether the kernel may take the parts of a message that it refused: an
// interface without checksums, or a route through IPsec, cannot segment (EIO); segments
// that are larger than the path's MTU are not fragmented (EMSGSIZE, EINVAL before 6.2).
func refusedWhole(err error) bool {
	return errors.Is(err, syscall.EIO) || errors.Is(err, syscall.EMSGSIZE) || errors.Is(err, syscall.EINVAL)
}

// refusedSource says whether the source may be why the kernel refused a message: the host
// has the address no more, or no route from it.
func refusedSource(err error) bool {
	for _, e := range []syscall.Errno{syscall.EINVAL, syscall.EADDRNOTAVAIL, syscall.ENETUNREACH, syscall.EHOSTUNREACH, syscall.ENODEV, syscall.EACCES} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}
