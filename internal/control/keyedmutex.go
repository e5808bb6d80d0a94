package control

import (
	"context"
	"sync"
)

// keyedMutex is one mutex for each key, kept only while somebody holds or awaits it.
type keyedMutex[K comparable] struct {
	mu   sync.Mutex
	held map[K]*keyed
}

type keyed struct {
	turn chan struct{} // holds one token while nobody has the lock
	refs int           // holders and waiters; guarded by keyedMutex.mu
}

// lock takes the lock of k, or gives up when ctx ends.
func (m *keyedMutex[K]) lock(ctx context.Context, k K) (unlock func(), err error) {
	m.mu.Lock()
	e := m.held[k]
	if e == nil {
		if m.held == nil {
			m.held = make(map[K]*keyed)
		}
		e = &keyed{turn: make(chan struct{}, 1)}
		e.turn <- struct{}{}
		m.held[k] = e
	}
	e.refs++
	m.mu.Unlock()

	select {
	case <-e.turn:
		return sync.OnceFunc(func() {
			e.turn <- struct{}{}
			m.leave(k, e)
		}), nil
	case <-ctx.Done():
		m.leave(k, e)
		return nil, ctx.Err()
	}
}

func (m *keyedMutex[K]) leave(k K, e *keyed) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if e.refs--; e.refs == 0 {
		delete(m.held, k)
	}
}
