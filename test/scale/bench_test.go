package scale

import (
	"os"
	"testing"
	"time"

	"vpnd/test/report"
)

// plan is how much is measured.
type plan struct {
	devices, groups int
	grants          [3]int // few, some, many
	rounds          int    // of compiling, swapping and iperf3
	seconds         int    // of one run of iperf3
	changes         int
	turns           int
	turn            time.Duration
}

// The benchmark's whole plan, and one that only proves that it runs.
var (
	wholePlan = plan{devices: 10_000, groups: 500, grants: [3]int{10, 1000, 5000}, rounds: 9, seconds: 2, changes: 100, turns: 30, turn: 150 * time.Millisecond}
	smallPlan = plan{devices: 100, groups: 5, grants: [3]int{2, 10, 30}, rounds: 1, seconds: 1, changes: 2, turns: 1, turn: 20 * time.Millisecond}
)

// TestBench measures what is promised of a policy at scale (docs/benchmarks.md).
func TestBench(t *testing.T) {
	needNamespaces(t, "ip", "nft", "wg", "wireguard-go", "iperf3")
	p := smallPlan
	if os.Getenv("VPND_BENCH") != "" {
		p = wholePlan
	}
	r := &report.Report{}
	r.Machine("The policy at scale")
	changing(t, r, p, compiling(t, r, p))
	packets(t, r, p)
	throughput(t, r, p)
	r.Add("\n  load average afterwards: %s", report.Load())
}
