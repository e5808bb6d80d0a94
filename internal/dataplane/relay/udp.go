package relay

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// How long a UDP flow lives without a packet: as Linux's conntrack has it unless its sysctls
// (net.netfilter.nf_conntrack_udp_timeout and …_stream) were changed, so that flows live alike
// whoever carries them. A stream is a flow that was answered and still has packets UDPYoung
// after it began (net/netfilter/nf_conntrack_proto_udp.c).
const (
	UDPIdle       = 30 * time.Second
	UDPStreamIdle = 2 * time.Minute
	UDPYoung      = 2 * time.Second
)

// Peer is the client's end of a UDP flow.
type Peer interface {
	// Write sends a datagram from the service to the client.
	Write([]byte) (int, error)
	// Unreachable tells the client that nobody is at the target's port.
	Unreachable()
}

// pair is what tells UDP flows apart.
type pair struct{ client, service netip.AddrPort }

// session is a UDP flow.
type session struct {
	flow *Flow
	peer Peer
	host net.Conn // connected with the target

	began            time.Time
	seen             atomic.Int64 // the last packet, nanoseconds since began
	answered, stream atomic.Bool
}

// Datagram carries a datagram of c's to its target. Whether the flow is a new one, which the
// plane may begin only where the policy permits it, is told by open being called: it says where
// the target is, and how the client is answered.
func (r *Relay) Datagram(c Caller, b []byte, open func() (Target, Peer, error)) error {
	r.mu.Lock()
	s := r.sessions[pair{c.Client, c.Service}]
	r.mu.Unlock()
	if s == nil {
		t, peer, err := open()
		if err != nil {
			return err
		}
		if s, err = r.session(c, t, peer); err != nil {
			return err
		}
	}
	s.touch(true)
	_, err := s.host.Write(b)
	if errors.Is(err, syscall.ECONNREFUSED) {
		// It is about a datagram before this one, which has not been sent yet.
		s.peer.Unreachable()
		_, err = s.host.Write(b)
	}
	switch {
	case err == nil, errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, syscall.EMSGSIZE), errors.Is(err, syscall.ENOBUFS):
		return nil // or this datagram is lost; the next may not be
	}
	cut := s.flow.isCut()
	s.flow.Cut()
	if cut {
		return ErrCut
	}
	return err
}

// session begins a flow; where another one of the same pair was quicker, it is that one.
func (r *Relay) session(c Caller, t Target, peer Peer) (*session, error) {
	f, err := r.Begin(c)
	if err != nil {
		return nil, err
	}
	host, err := r.dialTarget(context.Background(), "udp", c, t) // sends nothing, and waits for nobody
	if err != nil {
		f.Cut()
		return nil, err
	}
	s := &session{flow: f, peer: peer, host: host, began: time.Now()}
	key := pair{c.Client, c.Service}
	r.mu.Lock()
	other := r.sessions[key]
	if other == nil {
		r.sessions[key] = s
	}
	r.mu.Unlock()
	if other != nil {
		host.Close()
		f.Cut()
		return other, nil
	}
	end := func() {
		host.Close()
		r.mu.Lock()
		defer r.mu.Unlock()
		if r.sessions[key] == s {
			delete(r.sessions, key)
		}
	}
	if !f.onCut(end) {
		end()
		return nil, ErrCut
	}
	go s.answers()
	return s, nil
}

// touch notes that a packet has passed.
func (s *session) touch(forwards bool) {
	now := time.Since(s.began)
	s.seen.Store(int64(now))
	if !forwards {
		s.answered.Store(true)
	}
	if s.answered.Load() && now > UDPYoung {
		s.stream.Store(true)
	}
}

// ends is when the flow ends if there is no other packet. It never moves back.
func (s *session) ends() time.Time {
	idle := UDPIdle
	if s.stream.Load() {
		idle = UDPStreamIdle
	}
	return s.began.Add(time.Duration(s.seen.Load()) + idle)
}

// answers carries what the target sends, and ends the flow when it is idle.
func (s *session) answers() {
	defer s.flow.Cut()
	s.host.SetReadDeadline(s.ends())
	for {
		err := s.flow.relay.receive(s.host, func(b []byte) {
			s.touch(false)
			s.peer.Write(b) // what is lost is lost
		})
		switch {
		case err == nil, errors.Is(err, syscall.EMSGSIZE), errors.Is(err, syscall.ENOBUFS):
		case errors.Is(err, syscall.ECONNREFUSED):
			s.peer.Unreachable()
		case errors.Is(err, os.ErrDeadlineExceeded):
			end := s.ends()
			if !end.After(time.Now()) {
				return
			}
			s.host.SetReadDeadline(end)
		default:
			return
		}
	}
}

// largest is the largest datagram, in bytes.
const largest = 64 << 10

// receive hands one datagram to take. Flows that wait have no buffer.
func (r *Relay) receive(c net.Conn, take func([]byte)) error {
	sc, ok := c.(syscall.Conn)
	if !ok {
		b := r.buffer()
		defer r.buffers.Put(b)
		n, err := c.Read(b[:])
		if err == nil {
			take(b[:n])
		}
		return err
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return err
	}
	var errno error
	if err := raw.Read(func(fd uintptr) bool {
		b := r.buffer()
		defer r.buffers.Put(b)
		var n int
		for n, errno = unix.Read(int(fd), b[:]); errno == unix.EINTR; {
			n, errno = unix.Read(int(fd), b[:])
		}
		if errno == nil {
			take(b[:n])
		}
		return errno != unix.EAGAIN
	}); err != nil {
		return err
	}
	return errno
}

func (r *Relay) buffer() *[largest]byte {
	if b, ok := r.buffers.Get().(*[largest]byte); ok {
		return b
	}
	return new([largest]byte)
}
