// Package tell lets both ends of a tracked flow know that it was cut, also ends that only
// wait. It owns the marks of flows that are being told and the packets that make their ends
// answer; which flows are cut is decided by its caller, and what may pass by the filter.
//
// Nobody here knows a connection's sequence numbers, and without them no reset is believed.
// So the end that accepted the connection gets a SYN, and the one that began it a SYN+ACK,
// with made-up numbers. An end that has the connection answers with the right ones (RFC
// 5961, 4), in a segment that belongs to a tracked flow with our mark; the filter's rule for
// this mark answers with a reset, exact and translated as the flow is, and notes in the mark
// which end has been told. A bare ACK would do less: an end whose firewall drops what its
// conntrack calls invalid never sees it.
//
// A flow that is being told passes nothing, and when both ends know it is deleted. Our own
// packets are not tracked.
package tell

import (
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"sync"
	"time"

	"github.com/ti-mo/conntrack"
	"golang.org/x/sys/unix"
)

// Marks of flows (ct mark) that are being told. The filter sets the two low bits.
const (
	Mark     uint32 = 0xffffff00
	MarkMask uint32 = ^(Beginner | Acceptor)
	Beginner uint32 = 1 // the end that began the flow has been told
	Acceptor uint32 = 2 // the end that accepted it has been told
)

// Config is what a Teller needs.
type Config struct {
	Interface string // the tunnel's; the packets for its network go straight into it
	// PacketMark (fwmark) is carried by our packets, by which the filter knows them.
	PacketMark uint32
	Log        *slog.Logger

	noRaw  bool          // tests: CAP_NET_RAW is missing
	giveUp time.Duration // tests: is shorter; how long an end is asked that does not answer
}

// Teller tells the ends of flows. Its methods may be called concurrently.
type Teller struct {
	c    Config
	lack string // why ends cannot be told; "" if they can

	mu        sync.Mutex
	closed    bool
	running   bool
	told      *sync.Cond // running has become false
	network   []netip.Prefix
	flows     map[key]*telling
	datagrams []*job        // whose ICMP errors are not sent yet
	wake      chan struct{} // capacity 1
	blind     error         // why sockets of this host cannot be ended; nil if they can
}

// key names a flow by its original direction.
type key struct{ src, dst netip.AddrPort }

func keyOf(f conntrack.Flow) key {
	src, dst := ends(f.TupleOrig)
	return key{src, dst}
}

func ends(t conntrack.Tuple) (src, dst netip.AddrPort) {
	return netip.AddrPortFrom(t.IP.SourceAddress.Unmap(), t.Proto.SourcePort),
		netip.AddrPortFrom(t.IP.DestinationAddress.Unmap(), t.Proto.DestinationPort)
}

// New returns a Teller. Without CAP_NET_RAW it only deletes flows.
func New(c Config) *Teller {
	if c.giveUp == 0 {
		c.giveUp = 6 * time.Second
	}
	t := &Teller{c: c, flows: make(map[key]*telling), wake: make(chan struct{}, 1)}
	t.told = sync.NewCond(&t.mu)
	err := permitted()
	if c.noRaw {
		err = errNoRaw
	}
	if err != nil {
		t.lack = err.Error()
	}
	return t
}

// SetNetwork says which addresses lie in the tunnel.
func (t *Teller) SetNetwork(network []netip.Prefix) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.network = network
}

// Lack says what cannot be told to whom, and what is missing; "" if nothing is.
func (t *Teller) Lack() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case t.lack != "":
		return "the ends of connections that are cut, and that only wait, are not told of it: " + t.lack
	case t.blind != nil:
		return fmt.Sprintf("connections to this host itself are not reset when they are cut: %v", t.blind)
	}
	return ""
}

// Cut ends flows for good: when it returns, none of them can be taken for one that is
// permitted. It deletes those that have nobody to tell; the ends of the others are told
// from then on. done is closed when that has been done, or given up.
func (t *Teller) Cut(flows []conntrack.Flow) (done <-chan struct{}, err error) {
	job := &job{done: make(chan struct{})}
	conn, err := dial()
	if err != nil {
		return nil, err
	}
	defer func() { _ = conn.Close() }()
	var datagrams []conntrack.Flow
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, f := range flows {
		if t.lack != "" || t.closed || !tellable(f) {
			if f.TupleOrig.Proto.Protocol == unix.IPPROTO_UDP && t.lack == "" {
				datagrams = append(datagrams, f)
			}
			if err := remove(conn, f); err != nil {
				return nil, err
			}
			continue
		}
		x := t.flows[keyOf(f)]
		if x == nil {
			x = newTelling(f)
			if f.Mark&MarkMask != Mark { // else a former vpnd's, told in part
				switch err := conn.Update(x.marked()); {
				case isGone(err):
					continue
				case err != nil:
					return nil, fmt.Errorf("marking a cut flow from %s to %s: %w", x.key.src, x.key.dst, err)
				}
			}
			t.flows[x.key] = x
		}
		job.left++
		x.jobs = append(x.jobs, job)
	}
	job.datagrams = datagrams
	if job.left == 0 && len(datagrams) == 0 {
		close(job.done)
		return job.done, nil
	}
	t.startLocked(job)
	return job.done, nil
}

// Close gives up what is not told yet.
func (t *Teller) Close() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.closed = true
	t.wakeUp()
	for t.running {
		t.told.Wait()
	}
}

func (t *Teller) wakeUp() {
	select {
	case t.wake <- struct{}{}:
	default:
	}
}

// tellable says whether a flow's ends may wait for each other: a TCP connection that has
// been answered and that has not ended (linux/netfilter/nf_conntrack_tcp.h).
func tellable(f conntrack.Flow) bool {
	const synRecv, lastACK = 2, 6
	return f.TupleOrig.Proto.Protocol == unix.IPPROTO_TCP && f.ProtoInfo.TCP != nil &&
		f.ProtoInfo.TCP.State >= synRecv && f.ProtoInfo.TCP.State <= lastACK
}

func dial() (*conntrack.Conn, error) {
	conn, err := conntrack.Dial(nil)
	if err != nil {
		return nil, fmt.Errorf("open conntrack: %w", err)
	}
	return conn, nil
}

// remove deletes a flow, unless it has ended by itself.
func remove(conn *conntrack.Conn, f conntrack.Flow) error {
	err := conn.Delete(conntrack.Flow{ID: f.ID, Zone: f.Zone, TupleOrig: f.TupleOrig, TupleReply: f.TupleReply})
	if err != nil && !isGone(err) {
		return fmt.Errorf("delete a flow from %s to %s: %w", f.TupleOrig.IP.SourceAddress, f.TupleOrig.IP.DestinationAddress, err)
	}
	return nil
}

func isGone(err error) bool { return errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ENOENT) }
