package portal

import (
	"container/list"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// The public API's rate per source. A browser that waits for its device asks every two
// seconds; an office behind one address may enrol ten people at once.
const (
	publicRate    = 8 // requests per second
	publicBurst   = 60
	publicSources = 4096 // sources remembered: about 1 MB
)

// limiter is a token bucket for each source: an IPv4 address or an IPv6 /64. It
// remembers a bounded number of sources and forgets the one that was quiet for longest;
// who comes from so many addresses gets nothing by it that a new address would not give.
type limiter struct {
	rate  rate.Limit
	burst int
	max   int

	mu      sync.Mutex
	sources map[netip.Prefix]*list.Element // guarded by mu, as order
	order   *list.List                     // of *bucket, the latest first
}

type bucket struct {
	source netip.Prefix
	tokens *rate.Limiter
}

func newLimiter(r rate.Limit, burst, max int) *limiter {
	return &limiter{rate: r, burst: burst, max: max, sources: make(map[netip.Prefix]*list.Element), order: list.New()}
}

// take counts a request and returns how long to wait until the next one is welcome: 0
// means that this one is.
func (l *limiter) take(a netip.Addr) time.Duration {
	bits := a.BitLen()
	if a.Is6() {
		bits = 64
	}
	key, err := a.Prefix(bits)
	if err != nil {
		return time.Second // not an address
	}
	now := time.Now()
	l.mu.Lock()
	defer l.mu.Unlock()
	e := l.sources[key]
	if e == nil {
		if l.order.Len() >= l.max {
			oldest := l.order.Back()
			delete(l.sources, oldest.Value.(*bucket).source)
			l.order.Remove(oldest)
		}
		e = l.order.PushFront(&bucket{source: key, tokens: rate.NewLimiter(l.rate, l.burst)})
		l.sources[key] = e
	} else {
		l.order.MoveToFront(e)
	}
	r := e.Value.(*bucket).tokens.ReserveN(now, 1)
	wait := r.DelayFrom(now)
	if wait > 0 {
		r.CancelAt(now)
	}
	return wait
}
