package tell

import (
	"errors"
	"net/netip"
	"time"

	"github.com/ti-mo/conntrack"
	"golang.org/x/sys/unix"
)

// telling is a flow whose ends are being told.
type telling struct {
	key   key
	flow  conntrack.Flow // the tuples
	ends  [2]end
	begun time.Time // of the first packet; zero before
	next  time.Time // when to ask again
	tries int
	jobs  []*job
}

// end is one end of a flow: what it gets comes to it as if from its peer, as it knows it.
type end struct {
	bit      uint32
	from, to netip.AddrPort
	flags    byte
	told     bool
}

// job is what one call of Cut waits for.
type job struct {
	left      int
	datagrams []conntrack.Flow
	done      chan struct{}
}

func newTelling(f conntrack.Flow) *telling {
	x := &telling{key: keyOf(f), flow: conntrack.Flow{Zone: f.Zone, TupleOrig: f.TupleOrig, TupleReply: f.TupleReply}}
	// By the tuples, an address translation on the way is seen from each end's own side.
	beginner, peer := ends(f.TupleOrig)
	acceptor, other := ends(f.TupleReply)
	x.ends = [2]end{
		{bit: Beginner, from: peer, to: beginner, flags: flagSYN | flagACK},
		{bit: Acceptor, from: other, to: acceptor, flags: flagSYN},
	}
	return x
}

// marked is the flow with the mark that closes it.
func (x *telling) marked() conntrack.Flow {
	f := x.flow
	f.Mark = Mark
	return f
}

func (x *telling) told() bool { return x.ends[0].told && x.ends[1].told }

// The budget: as much as ten thousand flows need within two seconds, and no burst that a
// tunnel's queue (500 packets on a TUN device) would drop.
const (
	burst      = 200
	burstPause = 4 * time.Millisecond
)

// pauses are how long an end has to answer before it is asked again. Linux answers one such
// segment in half a second (net.ipv4.tcp_invalid_ratelimit): the second try, before that, is
// for packets that were lost.
var pauses = []time.Duration{200 * time.Millisecond, 400 * time.Millisecond, 600 * time.Millisecond, time.Second, 1500 * time.Millisecond}

// startLocked has the ends told, by one goroutine at a time.
func (t *Teller) startLocked(j *job) {
	if len(j.datagrams) > 0 {
		j.left++
		t.datagrams = append(t.datagrams, j)
	}
	if t.running {
		t.wakeUp()
		return
	}
	t.running = true
	go t.run()
}

// run tells until nobody is left.
func (t *Teller) run() {
	conn, err := dial()
	if err == nil {
		defer func() { _ = conn.Close() }()
	}
	quiet := time.Duration(0) // since when nothing has happened
	for {
		t.mu.Lock()
		if err != nil || t.closed || len(t.flows) == 0 && len(t.datagrams) == 0 {
			t.stopLocked(conn)
			t.mu.Unlock()
			if err != nil {
				t.c.Log.Warn("telling the ends of cut flows", "why", err)
			}
			return
		}
		datagrams := t.datagrams
		t.datagrams = nil
		now := time.Now()
		var due []*telling
		for _, x := range t.flows {
			if !x.next.After(now) {
				due = append(due, x)
			}
		}
		network := t.network
		t.mu.Unlock()

		if len(due)+len(datagrams) > 0 {
			quiet = 0
			t.ask(conn, network, due, datagrams)
		}
		var progress bool
		if progress, err = t.look(conn); progress {
			quiet = 0
		}
		// Answers come within a round trip; then only repeats are left.
		quiet = min(max(2*quiet, 2*time.Millisecond), 50*time.Millisecond)
		select {
		case <-time.After(quiet):
		case <-t.wake:
			quiet = 0
		}
	}
}

// stopLocked ends what is left, untold.
func (t *Teller) stopLocked(conn *conntrack.Conn) {
	for _, x := range t.flows {
		if conn != nil {
			_ = remove(conn, x.flow)
		}
		t.finishLocked(x)
	}
	for _, j := range t.datagrams {
		j.finish()
	}
	t.datagrams = nil
	t.running = false
	t.told.Broadcast()
}

func (t *Teller) finishLocked(x *telling) {
	delete(t.flows, x.key)
	for _, j := range x.jobs {
		j.finish()
	}
	x.jobs = nil
}

func (j *job) finish() {
	if j.left--; j.left == 0 {
		close(j.done)
	}
}

// ask sends every end that has not been told what makes it answer.
func (t *Teller) ask(conn *conntrack.Conn, network []netip.Prefix, due []*telling, datagrams []*job) {
	s := sockets{iface: t.c.Interface, mark: t.c.PacketMark}
	defer s.close()
	sent := 0
	send := func(e *end, b []byte) {
		inside := false
		for _, p := range network {
			inside = inside || p.Contains(e.to.Addr())
		}
		// An end that cannot be reached now is asked again; then it is given up.
		_ = s.send(e.to.Addr(), inside, b)
		if sent++; sent%burst == 0 {
			time.Sleep(burstPause)
		}
	}
	own := newOwn()
	defer own.close()
	for _, x := range due {
		for i := range x.ends {
			e := &x.ends[i]
			switch {
			case e.told:
			case own.has(e.to.Addr()):
				e.told = true // or it is no socket of ours any more
				if err := own.end(pair{e.to, e.from}); err != nil {
					t.noteBlind(err)
				}
			default:
				send(e, segment(e.from, e.to, e.flags))
			}
		}
		now := time.Now()
		if x.begun.IsZero() {
			x.begun = now
		}
		x.next = now.Add(pauses[min(x.tries, len(pauses)-1)])
		x.tries++
	}
	for _, j := range datagrams {
		for _, f := range j.datagrams {
			x := newTelling(f)
			for i := range x.ends {
				if e := &x.ends[i]; !own.has(e.to.Addr()) {
					send(e, prohibited(e.from, e.to))
				}
			}
		}
		t.mu.Lock()
		j.finish()
		t.mu.Unlock()
	}
}

func (t *Teller) noteBlind(err error) {
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ESTALE) {
		return // it has gone meanwhile
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.blind == nil {
		t.blind = err
		t.c.Log.Warn("ending a connection of this host", "why", err)
	}
}

// look finds out who has been told, and takes away the flows that are done with.
func (t *Teller) look(conn *conntrack.Conn) (progress bool, err error) {
	list, err := conn.DumpFilter(conntrack.Filter{Mark: Mark, Mask: MarkMask}, nil)
	if err != nil && !errors.Is(err, unix.EINTR) {
		return false, err
	}
	bits := make(map[key]uint32, len(list))
	for _, f := range list {
		bits[keyOf(f)] = f.Mark | 1<<31
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	now := time.Now()
	for _, x := range t.flows {
		b := bits[x.key]
		for i := range x.ends {
			x.ends[i].told = x.ends[i].told || b&x.ends[i].bit != 0
		}
		if x.begun.IsZero() {
			continue // marked after the list was made, perhaps
		}
		gone := b == 0 && err == nil
		if !gone && !x.told() && now.Sub(x.begun) < t.c.giveUp {
			continue
		}
		progress = true
		if !gone {
			if err := remove(conn, x.flow); err != nil {
				return progress, err
			}
		}
		t.finishLocked(x)
	}
	return progress, nil
}
