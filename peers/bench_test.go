package peers

import (
	"bytes"
	"fmt"
	"runtime"
	"slices"
	"testing"
	"time"
)

// populate enrols n users with one device each.
func populate(c *cluster, n int) {
	for i := range n {
		c.now = c.now.Add(time.Millisecond)
		enrol(c, number("user", i), "phone")
		c.log = c.log[:0]
	}
}

// sizes are the numbers of devices at which costs are compared.
var sizes = []int{10, 10_000, 50_000}

// The three commands of an enrolment. Its cost must not depend on the size.
func BenchmarkEnrolment(b *testing.B) {
	for _, n := range sizes {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			c := newCluster(b, "10.0.0.0/8")
			populate(c, n)
			i := n
			for b.Loop() {
				enrol(c, number("user", i), "phone")
				c.log = c.log[:0]
				i++
			}
		})
	}
}

func BenchmarkLogin(b *testing.B) {
	for _, n := range sizes {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			c := newCluster(b, "10.0.0.0/8")
			populate(c, n)
			devices := slices.Collect(c.View().Devices())
			i := 0
			for b.Loop() {
				c.now = c.now.Add(30 * time.Second)
				must(c, Login{devices[i%len(devices)].ID, c.step(0)})
				c.log = c.log[:0]
				i++
			}
		})
	}
}

func BenchmarkRestore(b *testing.B) {
	c := newCluster(b, "10.0.0.0/8")
	populate(c, 50_000)
	snapshot := c.snapshot()
	b.SetBytes(int64(len(snapshot)))
	for b.Loop() {
		if err := New().Restore(bytes.NewReader(snapshot)); err != nil {
			b.Fatal(err)
		}
	}
}

// The live heap of a user with one device and without a session, 50,000 of them, the
// bounded tables (audit log, answers, journal) included; at most 6 KiB.
func BenchmarkMemory(b *testing.B) {
	const n = 50_000
	for b.Loop() {
		before := liveHeap()
		c := newCluster(b, "10.0.0.0/8")
		populate(c, n)
		b.ReportMetric(float64(liveHeap()-before)/n, "with-invitation-B/user")
		c.now = c.now.Add(49 * time.Hour)
		for must(c, Expire{}).Count > 0 {
		}
		b.ReportMetric(float64(liveHeap()-before)/n, "B/user")
		snapshot := c.snapshot()
		runtime.KeepAlive(c)
		before = liveHeap()
		s := New()
		if err := s.Restore(bytes.NewReader(snapshot)); err != nil {
			b.Fatal(err)
		}
		b.ReportMetric(float64(liveHeap()-before)/n, "restored-B/user")
		runtime.KeepAlive(s)
		b.ReportMetric(float64(len(snapshot))/n, "snapshot-B/user")
	}
}

func liveHeap() uint64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.GC()
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}
