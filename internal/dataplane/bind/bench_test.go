package bind

import (
	"fmt"
	"net/netip"
	"os"
	"sync/atomic"
	"testing"
	"time"

	"golang.zx2c4.com/wireguard/conn"

	"vpnd/test/report"
)

// TestBench measures this socket against wireguard-go's own, in turns within one run
// (docs/benchmarks.md). In a test run it is short and proves that it works.
func TestBench(t *testing.T) {
	turns, turn := 1, 20*time.Millisecond
	if os.Getenv("VPND_BENCH") != "" {
		turns, turn = 15, 400*time.Millisecond
	}
	r := &report.Report{}
	if turns > 1 {
		r.Machine("WireGuard's socket, by the loopback interface")
	}
	for _, size := range []int{1452, 148} {
		for _, batch := range []int{1, 8, 128} {
			var ratios, ours []float64
			for i := range turns {
				binds := []conn.Bind{New(netip.Addr{}), conn.NewStdNetBind()}
				var rate [2]float64
				for j := range binds {
					k := (i + j) % 2
					rate[k] = pump(t, binds[k], size, batch, turn)
				}
				ours = append(ours, rate[0])
				ratios = append(ratios, rate[0]/rate[1])
			}
			if turns > 1 {
				m := report.Median(ratios)
				r.Judge(m >= 1, "%d bytes, %d at once: %.0f Mbit/s received, %.2f of wireguard-go's own socket (at least 1)",
					size, batch, report.Median(ours)*float64(size)*8/1e6, m)
			}
		}
	}
}

// pump sends from one bind to another of its kind and returns how many datagrams a second
// arrived.
func pump(t *testing.T, to conn.Bind, size, batch int, d time.Duration) float64 {
	t.Helper()
	from := conn.Bind(New(netip.Addr{}))
	if _, ours := to.(*Bind); !ours {
		from = conn.NewStdNetBind()
	}
	fns, port, err := to.Open(0)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := from.Open(0); err != nil {
		t.Fatal(err)
	}
	var got atomic.Int64
	ended := make(chan struct{}, len(fns))
	for _, f := range fns {
		go func() {
			defer func() { ended <- struct{}{} }()
			bufs, sizes, eps := make([][]byte, to.BatchSize()), make([]int, to.BatchSize()), make([]conn.Endpoint, to.BatchSize())
			for i := range bufs {
				bufs[i] = make([]byte, 65535)
			}
			for {
				n, err := f(bufs, sizes, eps)
				if err != nil {
					return
				}
				got.Add(int64(n))
			}
		}()
	}
	e, err := from.ParseEndpoint(fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil {
		t.Fatal(err)
	}
	bufs := make([][]byte, batch)
	for i := range bufs {
		bufs[i] = make([]byte, size, 65535) // as wireguard-go's, whose socket joins them in place
	}
	begun := time.Now()
	for time.Since(begun) < d {
		if err := from.Send(bufs, e); err != nil {
			t.Fatal(err)
		}
	}
	rate := float64(got.Load()) / time.Since(begun).Seconds()
	from.Close()
	to.Close()
	for range fns {
		<-ended
	}
	return rate
}
