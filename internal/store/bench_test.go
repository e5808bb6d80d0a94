package store

import (
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
)

// BenchmarkOpen starts a store of 50,000 users, most of them in the snapshot, and waits
// until it leads.
func BenchmarkOpen(b *testing.B) {
	dir := b.TempDir()
	s := open(b, dir)
	propose(b, s, initial())
	add := func(from, to int) {
		var next atomic.Int64
		next.Store(int64(from))
		var wg sync.WaitGroup
		for range 64 {
			wg.Go(func() {
				for n := next.Add(1); n <= int64(to); n = next.Add(1) {
					if _, r, err := s.Propose(b.Context(), addUser(fmt.Sprintf("user%d", n))); err != nil || r.Err != nil {
						b.Error(err, r.Err)
						return
					}
				}
			})
		}
		wg.Wait()
	}
	add(0, 45_000)
	if err := s.Snapshot(); err != nil {
		b.Fatal(err)
	}
	add(45_000, 50_000)
	if err := s.Close(); err != nil {
		b.Fatal(err)
	}
	b.ResetTimer()
	for range b.N {
		s := open(b, dir)
		b.StopTimer()
		if users, _, _ := s.State().View().Counts(); users != 50_000 {
			b.Fatalf("%d users", users)
		}
		s.Close()
		b.StartTimer()
	}
}

// BenchmarkPropose writes to a real disk, fsync included.
func BenchmarkPropose(b *testing.B) {
	for _, callers := range []int{1, 16, 64} {
		b.Run(fmt.Sprintf("callers=%d", callers), func(b *testing.B) {
			s := open(b, b.TempDir())
			propose(b, s, initial())
			var next atomic.Int64
			var wg sync.WaitGroup
			b.ResetTimer()
			for range callers {
				wg.Go(func() {
					for n := next.Add(1); n <= int64(b.N); n = next.Add(1) {
						_, r, err := s.Propose(b.Context(), addUser(fmt.Sprintf("user%d", n)))
						if err != nil || r.Err != nil {
							b.Error(err, r.Err)
							return
						}
					}
				})
			}
			wg.Wait()
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "commands/s")
		})
	}
}
