package netstack

import (
	"math"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"vpnd/acl/rules"
)

// flowKind says where a flow's packets go and what it needs to live.
type flowKind uint8

const (
	kindPortal   flowKind = iota // the portal, for any enabled device
	kindApp                      // the app's unix socket
	kindResource                 // a host behind the gateway
	kindPeer                     // another device, packet by packet
	kindGateway                  // an echo that the gateway itself answers
	kindService                  // a published resource, at its service address
)

// flow is what one permitted first packet began.
type flow struct {
	key      flowKey
	kind     flowKind
	src, dst *peer   // the devices at the ends; dst only for kindPeer
	srcOpen  opening // their sign-ins at the beginning
	dstOpen  opening
	service  string // kindService: the resource's name

	// What was judged last: the plane's generation then, and until when it holds (Unix
	// nanoseconds). While both stand a packet needs no verdict of its own.
	gen   atomic.Uint64
	until atomic.Int64
	seen  atomic.Int64  // last packet, Unix nanoseconds
	tcp   atomic.Uint32 // kindPeer: which ends have sent FIN, or whether one sent RST
	next  [2]nextSeq    // kindPeer: what each end will send next, the flow's beginner first
	dead  atomic.Bool

	// isn is the sequence number of the SYN that began a TCP flow: Linux takes no ICMP error
	// about a connection that quotes another (net/ipv4/tcp_ipv4.c, tcp_v4_err).
	isn uint32

	// UDP: when it began (Unix nanoseconds), and what it has come to since.
	began            int64
	answered, stream atomic.Bool

	mu      sync.Mutex
	timer   *time.Timer // judges again when until has come
	cutters []func()    // end what belongs to the flow at once
	ping    net.Conn    // of an ICMP flow to a resource
	// drained says whether an ended flow has nothing more to send; nil while it runs.
	drained func() bool
	ended   time.Time
}

// flow.tcp bits.
const (
	tcpFINForward = 1 << iota
	tcpFINBack
	tcpWasReset
	tcpReplied
)

// onCut registers what cut must end; false means that the flow is dead already and
// nothing was registered.
func (f *flow) onCut(end func()) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.dead.Load() {
		return false
	}
	f.cutters = append(f.cutters, end)
	return true
}

// kill marks f dead and ends what belongs to it. When it returns, that is done, also
// when someone else was first.
func (f *flow) kill() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.dead.Store(true)
	if f.timer != nil {
		f.timer.Stop()
		f.timer = nil
	}
	for _, end := range f.cutters {
		end()
	}
	f.cutters = nil
}

// judge asks the policy whether f may live at now, and until when that holds.
func (p *Plane) judge(f *flow, now time.Time) (rules.Verdict, bool) {
	if p.devices.get(f.key.src.Addr()) != f.src {
		return rules.Verdict{}, false
	}
	if f.kind == kindPortal {
		return rules.Verdict{Allow: true}, true
	}
	pk := rules.Packet{
		Src: f.key.src.Addr(), Dst: f.key.dst.Addr(), Proto: f.key.proto, DstPort: f.key.dst.Port(),
		SrcSession: f.src.session.Load().worth(f.srcOpen, now),
	}
	if f.kind == kindPeer {
		if p.devices.get(f.key.dst.Addr()) != f.dst {
			return rules.Verdict{}, false
		}
		pk.DstSession = f.dst.session.Load().worth(f.dstOpen, now)
	}
	ruleset := p.rules.Load()
	// The services last: an address that has become another's is nobody's until the policy
	// is the new one.
	if ruleset == nil || f.kind == kindService && p.called(f) == nil {
		return rules.Verdict{}, false
	}
	v := ruleset.Verdict(pk, now)
	return v, v.Allow
}

// minRecheck bounds how often a flow's timer fires. Packets are judged by the exact time.
const minRecheck = 10 * time.Millisecond

// allowed says whether a packet of f may pass at now. A flow that may no longer live is
// cut by it.
func (p *Plane) allowed(f *flow, now time.Time) bool {
	if f.dead.Load() {
		return false
	}
	if f.gen.Load() == p.gen.Load() && now.UnixNano() < f.until.Load() {
		return true
	}
	return p.rejudge(f, now)
}

// rejudge judges f anew and cuts it when it may not live.
func (p *Plane) rejudge(f *flow, now time.Time) bool {
	gen := p.gen.Load() // before the verdict: a change during it makes us judge again
	v, ok := p.judge(f, now)
	if !ok {
		if !f.dead.Swap(true) { // or whoever was first has told them
			p.tellUDP(f)
		}
		p.cut(f)
		return false
	}
	until := int64(math.MaxInt64)
	if !v.Until.IsZero() {
		until = v.Until.UnixNano()
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.dead.Load() {
		return false
	}
	if f.gen.Load() > gen {
		return true // someone else's verdict is newer than ours
	}
	switch wait := max(v.Until.Sub(now), minRecheck); {
	case f.until.Load() == until && (f.timer != nil || v.Until.IsZero()) && now.UnixNano() < until:
	case v.Until.IsZero():
		if f.timer != nil {
			f.timer.Stop()
		}
	case f.timer == nil:
		f.timer = time.AfterFunc(wait, func() {
			f.mu.Lock()
			f.timer = nil // it has fired: rejudge sets the next
			f.mu.Unlock()
			p.rejudge(f, time.Now())
		})
	default:
		f.timer.Reset(wait)
	}
	f.until.Store(until)
	f.gen.Store(gen)
	return true
}

// cut ends f at once: nothing of it passes any more, both ends are reset.
func (p *Plane) cut(f *flow) {
	f.dead.Store(true) // for packets, which do not wait
	f.kill()
	p.flows.remove(f)
}

// flows is the table of flows. Packets find them by key; changes find them by device.
type flows struct {
	mu     sync.RWMutex
	byKey  map[flowKey]*flow
	byAddr map[netip.Addr]map[*flow]struct{}
	max    int // that cost a socket
	portal int // to the portal, which cost none
}

func (t *flows) get(k flowKey) *flow {
	t.mu.RLock()
	f := t.byKey[k]
	t.mu.RUnlock()
	return f
}

// add puts f into the table unless its key is there already, when it returns that flow,
// or the table or the device's share is full, when it returns nil.
func (t *flows) add(f *flow) *flow {
	t.mu.Lock()
	defer t.mu.Unlock()
	if g := t.byKey[f.key]; g != nil {
		return g
	}
	if !t.roomLocked(f) {
		return nil
	}
	t.countLocked(f, 1)
	t.byKey[f.key] = f
	t.index(f.key.src.Addr(), f)
	if f.dst != nil {
		t.index(f.key.dst.Addr(), f)
	}
	return f
}

// roomLocked says whether f's kind and its device have room for it.
func (t *flows) roomLocked(f *flow) bool {
	if f.kind == kindPortal {
		return t.portal < maxPortalFlows && f.src.portal < maxPortalFlows/8
	}
	return len(t.byKey)-t.portal < t.max && int(f.src.flows.Load()) < max(t.max/8, 16)
}

func (t *flows) countLocked(f *flow, n int) {
	if f.kind == kindPortal {
		t.portal += n
		f.src.portal += n
		return
	}
	f.src.flows.Add(int32(n))
}

func (t *flows) index(a netip.Addr, f *flow) {
	if t.byAddr[a] == nil {
		t.byAddr[a] = make(map[*flow]struct{})
	}
	t.byAddr[a][f] = struct{}{}
}

func (t *flows) remove(f *flow) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.byKey[f.key] != f {
		return
	}
	t.countLocked(f, -1)
	delete(t.byKey, f.key)
	for _, a := range []netip.Addr{f.key.src.Addr(), f.key.dst.Addr()} {
		delete(t.byAddr[a], f)
		if len(t.byAddr[a]) == 0 {
			delete(t.byAddr, a)
		}
	}
}

// of returns the flows that the devices at addrs are ends of.
func (t *flows) of(addrs []netip.Addr) []*flow {
	t.mu.RLock()
	defer t.mu.RUnlock()
	var fs []*flow
	for _, a := range addrs {
		for f := range t.byAddr[a] {
			fs = append(fs, f)
		}
	}
	return fs
}

// all returns every flow.
func (t *flows) all() []*flow {
	t.mu.RLock()
	defer t.mu.RUnlock()
	fs := make([]*flow, 0, len(t.byKey))
	for _, f := range t.byKey {
		fs = append(fs, f)
	}
	return fs
}
