package control

import (
	"sync"
	"time"

	"golang.org/x/time/rate"

	"vpnd/peers"
)

// Each beginning of an enrolment in another browser is a command and a line of the audit
// log. Who holds an invitation must not be able to wash the log out with them.
const (
	beginBurst = 20          // browsers at once, of one invitation
	beginEvery = time.Minute // and one more in so long
	beginsKept = 4096        // invitations remembered: about 0.5 MB
)

// beginLimit is a token bucket for each invitation that was begun of late.
type beginLimit struct {
	mu      sync.Mutex
	buckets map[peers.ID]*rate.Limiter
}

// begunElsewhere counts a beginning in another browser than before, as take does.
func (l *Leader) begunElsewhere(inv *peers.Invitation) time.Duration {
	if len(inv.Pending) == 0 {
		return 0 // the first
	}
	return l.begun.take(inv.ID, l.now())
}

// take counts a beginning and returns how long to wait until the next one is welcome: 0
// means that this one is.
func (l *beginLimit) take(invitation peers.ID, now time.Time) time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	b := l.buckets[invitation]
	if b == nil {
		if len(l.buckets) >= beginsKept {
			for id, other := range l.buckets {
				if other.TokensAt(now) >= beginBurst {
					delete(l.buckets, id)
				}
			}
		}
		if len(l.buckets) >= beginsKept {
			return beginEvery
		}
		if l.buckets == nil {
			l.buckets = make(map[peers.ID]*rate.Limiter)
		}
		b = rate.NewLimiter(rate.Every(beginEvery), beginBurst)
		l.buckets[invitation] = b
	}
	r := b.ReserveN(now, 1)
	wait := r.DelayFrom(now)
	if wait > 0 {
		r.CancelAt(now)
	}
	return wait
}
