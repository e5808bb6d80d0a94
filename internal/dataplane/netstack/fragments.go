package netstack

import (
	"net/netip"
	"sync"
	"time"
)

// pieces remembers the datagrams whose first fragment was judged, so that the later
// ones, which carry no ports, share its fate. A later fragment that comes before the
// first is dropped. The stack and the receiving device put the pieces together; both
// refuse overlaps.
type pieces struct {
	plane *Plane
	mu    sync.Mutex
	seen  map[pieceKey]pieceFate
	swept time.Time
}

type pieceKey struct {
	src, dst netip.Addr
	proto    uint8
	id       uint32
}

type pieceFate struct {
	action action
	flow   *flow
	until  time.Time
}

const (
	pieceLife = 15 * time.Second // RFC 791 suggests as much for reassembly
	maxPieces = 4096             // datagrams; further ones are dropped
)

func keyOf(pk *packet) pieceKey { return pieceKey{pk.src, pk.dst, pk.proto, pk.id} }

// note remembers what became of a datagram's first fragment.
func (t *pieces) note(pk *packet, a action, f *flow, now time.Time) {
	if a != deliver && a != forward {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.seen) >= maxPieces || now.Sub(t.swept) > pieceLife {
		for k, v := range t.seen {
			if !now.Before(v.until) {
				delete(t.seen, k)
			}
		}
		t.swept = now
		if len(t.seen) >= maxPieces {
			return
		}
	}
	t.seen[keyOf(pk)] = pieceFate{a, f, now.Add(pieceLife)}
}

// action is what becomes of a later fragment.
func (t *pieces) action(pk *packet, now time.Time) action {
	t.mu.Lock()
	v, ok := t.seen[keyOf(pk)]
	t.mu.Unlock()
	if !ok || !now.Before(v.until) || !t.plane.allowed(v.flow, now) {
		return drop
	}
	return v.action
}
