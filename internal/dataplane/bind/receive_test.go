package bind

import (
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"
	"golang.zx2c4.com/wireguard/conn"
)

// source gives what it has, a read at a time, and fails once in between.
type source struct {
	reads [][]message
	err   error
}

func (s *source) WriteBatch([]message, int) (int, error) { return 0, errors.ErrUnsupported }

func (s *source) ReadBatch(into []message, _ int) (int, error) {
	if s.err != nil {
		err := s.err
		s.err = nil
		return 0, err
	}
	if len(s.reads) == 0 {
		return 0, net.ErrClosed
	}
	for i, m := range s.reads[0] {
		into[i].N, into[i].NN = copy(into[i].Buffers[0], m.Buffers[0]), copy(into[i].OOB, m.OOB)
		into[i].Addr = m.Addr
	}
	n := len(s.reads[0])
	s.reads = s.reads[1:]
	return n, nil
}

// coalesced is a message as UDP_GRO delivers it.
func coalesced(from netip.AddrPort, to netip.Addr, size, n int) message {
	var seg [4]byte
	binary.NativeEndian.PutUint32(seg[:], uint32(size))
	oob := appendSource(make([]byte, 0, 2*controlSize), to, 0)
	if n > 1 {
		oob = appendControl(oob, unix.SOL_UDP, unix.UDP_GRO, seg[:])
	}
	data := make([]byte, 0, size*n)
	for i := range n {
		for range size {
			data = append(data, byte(i))
		}
	}
	return message{Buffers: [][]byte{data}, OOB: oob, Addr: net.UDPAddrFromAddrPort(from)}
}

// More datagrams in one read than WireGuard takes at once are handed out all, with their
// sender and where they came to; an empty one and a failure are passed over.
func TestMoreThanOneBatch(t *testing.T) {
	other := netip.MustParseAddrPort("192.0.2.9:9")
	s := &source{err: unix.ENOMEM, reads: [][]message{{
		coalesced(peer4, ours4, 700, 64), coalesced(other, ours4, 0, 1), coalesced(other, ours4, 100, 64),
		coalesced(peer6, ours6, 99, 64), coalesced(peer4, ours4, 5, 1),
	}}}
	r := newReceiver(s)
	bufs, sizes, eps := make([][]byte, 128), make([]int, 128), make([]conn.Endpoint, 128)
	for i := range bufs {
		bufs[i] = make([]byte, 65535)
	}
	count := map[netip.AddrPort]int{}
	for {
		n, err := r.receive(bufs, sizes, eps)
		if errors.Is(err, net.ErrClosed) {
			break
		}
		if err != nil || n == 0 {
			t.Fatal(n, err)
		}
		for i := range n {
			e := eps[i].(*Endpoint)
			to, size := ours4, map[netip.AddrPort]int{peer4: 700, other: 100, peer6: 99}[e.dst]
			if e.dst == peer6 {
				to = ours6
			}
			if e.dst == peer4 && count[peer4] == 64 {
				size = 5
			}
			if e.SrcIP() != to || sizes[i] != size || size > 5 && bufs[i][0] != byte(count[e.dst]) {
				t.Fatalf("%v to %v: %d bytes, number %d of it", e.dst, e.SrcIP(), sizes[i], count[e.dst])
			}
			count[e.dst]++
		}
	}
	if count[peer4] != 65 || count[other] != 64 || count[peer6] != 64 {
		t.Errorf("datagrams: %v", count)
	}
}

// Whatever stands in control messages, reading them ends.
func FuzzControl(f *testing.F) {
	f.Add([]byte{})
	f.Add(appendSegment(appendSource(make([]byte, 0, controlSize), ours6, 3), 1452))
	f.Add(appendSource(make([]byte, 0, controlSize), ours4, 0))
	f.Fuzz(func(t *testing.T, b []byte) {
		a := parseControl(b)
		if a.segment < 0 {
			t.Errorf("segments of %d bytes", a.segment)
		}
	})
}
