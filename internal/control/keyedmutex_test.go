package control

import (
	"context"
	"errors"
	"runtime"
	"sync"
	"testing"
	"testing/synctest"
)

func TestKeyedMutex(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var m keyedMutex[int]
		unlock, err := m.lock(t.Context(), 1)
		if err != nil {
			t.Fatal(err)
		}
		other, err := m.lock(t.Context(), 2) // another key is free
		if err != nil {
			t.Fatal(err)
		}
		other()
		// Who gives up while waiting leaves nothing behind.
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() {
			_, err := m.lock(ctx, 1)
			done <- err
		}()
		synctest.Wait()
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("given up: %v", err)
		}
		var wg sync.WaitGroup
		inside, passed := 0, 0
		for range 100 {
			wg.Go(func() {
				unlock, err := m.lock(t.Context(), 1)
				if err != nil {
					t.Error(err)
					return
				}
				defer unlock()
				if inside++; inside != 1 {
					t.Errorf("%d hold the lock", inside)
				}
				runtime.Gosched()
				inside--
				passed++
			})
		}
		synctest.Wait()
		if passed != 0 {
			t.Errorf("%d passed a lock that is held", passed)
		}
		unlock()
		unlock() // a second time does nothing
		wg.Wait()
		if passed != 100 || len(m.held) != 0 {
			t.Errorf("%d passed, %d locks are left", passed, len(m.held))
		}
	})
}
