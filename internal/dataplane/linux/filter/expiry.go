package filter

import (
	"container/heap"
	"net/netip"
	"time"
)

// Sessions and chains of codes end by the kernel's timeouts, whoever watches. But both ends
// of their flows are to be told at that moment, so we have a clock for it as well.

// instant is an instant at which flows of a device may have lost their permission.
type instant struct {
	at   time.Time
	addr netip.Addr
}

// instants is a heap, the earliest first. An instant that has been overtaken by a later code
// stays in it until its time, and then nothing is found to be cut.
type instants []instant

func (e instants) Len() int           { return len(e) }
func (e instants) Less(i, j int) bool { return e[i].at.Before(e[j].at) }
func (e instants) Swap(i, j int)      { e[i], e[j] = e[j], e[i] }
func (e *instants) Push(x any)        { *e = append(*e, x.(instant)) }
func (e *instants) Pop() any {
	old := *e
	x := old[len(old)-1]
	*e = old[:len(old)-1]
	return x
}

// instantsOf are the instants of a session, for each freshness in use.
func instantsOf(a netip.Addr, s session, fresh []time.Duration, now time.Time) (out []instant) {
	seen := make(map[time.Time]bool)
	for _, d := range fresh {
		if _, until, ok := s.chain(d, now); ok && !seen[until] {
			seen[until] = true
			out = append(out, instant{until, a})
		}
	}
	if s.until.After(now) && !seen[s.until] {
		out = append(out, instant{s.until, a})
	}
	return out
}

// clockLook bounds how long a clock that was set forward, or that stood still while the
// host slept, can keep an instant from being noticed. The kernel's own does not care.
const clockLook = 5 * time.Second

// expectLocked takes up the instants of the sessions that p has put, or of all.
func (f *Filter) expectLocked(p plan, all bool, now time.Time) {
	if all {
		f.instants = f.instants[:0]
		for a, s := range f.sessions {
			f.instants = append(f.instants, instantsOf(a, s, f.layout.fresh, now)...)
		}
		heap.Init(&f.instants)
	} else {
		for a, s := range p.patch.sessions {
			if s != nil {
				for _, e := range instantsOf(a, *s, f.layout.fresh, now) {
					heap.Push(&f.instants, e)
				}
			}
		}
	}
	f.awaitLocked(now)
}

// awaitLocked sets the clock for the next instant.
func (f *Filter) awaitLocked(now time.Time) {
	if f.expiry != nil {
		f.expiry.Stop()
		f.expiry = nil
	}
	if len(f.instants) > 0 {
		f.expiry = time.AfterFunc(min(max(f.instants[0].at.Sub(now), time.Millisecond), clockLook), f.expire)
	}
}

// expire cuts the flows of what the kernel has ended by itself.
func (f *Filter) expire() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return
	}
	now := f.now()
	var c cut
	for len(f.instants) > 0 && !f.instants[0].at.After(now) {
		a := heap.Pop(&f.instants).(instant).addr
		s, ok := f.sessions[a]
		if !ok {
			continue
		}
		c.broken = append(c.broken, s.serials()...)
		if f.devices[a].zone != 0 { // others may have begun flows to it
			c.lost = append(c.lost, a)
		}
	}
	if err := f.cutLocked(c, now); err != nil {
		f.c.Log.Warn("packet filter: at the end of a session", "why", err)
		heap.Push(&f.instants, instant{at: now.Add(time.Second)}) // f.uncut is made up for then
	}
	f.awaitLocked(now)
}
