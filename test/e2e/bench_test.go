package e2e

import (
	"cmp"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"vpnd/test/report"
)

// benchPlan is how much is measured.
type benchPlan struct {
	sizes    []int // devices in the state
	rounds   int   // of enrolments
	devices  int   // added in a round; a multiple of devicesPerUser
	signIns  int
	restarts int
	// The tunnel's throughput: devices with sessions, grants, runs, seconds of a run.
	sessions, grants, runs, seconds int
}

// The benchmark's whole plan, and one that only proves that it runs.
var (
	wholePlan = benchPlan{rounds: 3, devices: 1000, signIns: 200, restarts: 3,
		sessions: 10_000, grants: 1000, runs: 5, seconds: 3}
	smokePlan = benchPlan{sizes: []int{10, 100}, rounds: 1, devices: 40, signIns: 2, restarts: 1,
		sessions: 100, grants: 10, runs: 1, seconds: 1}
)

// TestBench measures what is promised (docs/benchmarks.md). In a test run it is a small
// one, which proves that all of it works; test/bench makes the whole.
//
// The states of all sizes are served at once and measured in turns: what else the machine
// does hits them alike, and costs the same in their ratios.
func TestBench(t *testing.T) {
	plan := smokePlan
	if sizes := os.Getenv("VPND_BENCH"); sizes != "" {
		plan = wholePlan
		for f := range strings.FieldsSeq(sizes) {
			n, err := strconv.Atoi(f)
			if err != nil {
				t.Fatal(err)
			}
			plan.sizes = append(plan.sizes, n)
		}
	}
	dir := benchDir(t)
	r := &benchReport{}
	r.machine(dir)

	beds := make([]*bed, len(plan.sizes))
	heaps := make([]heap, len(plan.sizes))
	for i, n := range plan.sizes {
		r.Progress("making a state with %d people of one device each", n)
		beds[i] = newBed(t, dir, n, benchPolicy())
		r.Progress("measuring its memory")
		heaps[i] = beds[i].memory()
		beds[i].signInAll()
	}
	r.memory(plan.sizes, heaps)

	r.Progress("starting vpnd, and again after kill -9")
	for _, b := range beds {
		b.serve()
		b.impersonate()
		var took []time.Duration
		for range plan.restarts {
			took = append(took, b.restart())
		}
		r.restart(b.n, took, b.resident())
	}
	r.Progress("restarting while clients are connected")
	for _, b := range beds {
		live := min(b.n, 1000)
		var first, last []time.Duration
		for range plan.restarts {
			f, l := b.recall(live)
			first, last = append(first, f), append(last, l)
		}
		r.recalled(b.n, live, report.Median(first), report.Median(last))
	}

	r.Progress("signing %d people in and out, at each size", plan.signIns)
	samples := make([][]sample, len(beds))
	for range plan.signIns {
		for i, b := range beds {
			s, err := b.vm.signInAndOut(t.Context())
			if err != nil {
				t.Fatalf("with %d devices: %v", b.n, err)
			}
			samples[i] = append(samples[i], s)
		}
	}
	r.latencies(plan.sizes, samples)

	r.Progress("enrolling, %d times %d devices at each size", 2*plan.rounds, plan.devices)
	devices, people := make([][]float64, len(beds)), make([][]float64, len(beds))
	for range plan.rounds {
		for i, b := range beds {
			devices[i] = append(devices[i], b.enrolRound(plan.devices))
			people[i] = append(people[i], b.peopleRound(plan.devices))
		}
	}
	r.enrolments(plan.sizes, devices, people)
	for _, b := range beds {
		b.stopHard()
	}

	r.Add("\n  load average after the turns: %s", report.Load())
	r.Progress("making a state with %d people, all signed in, and %d grants", plan.sessions, plan.grants)
	b := newBed(t, dir, plan.sessions, benchPolicy(manyGrants(plan.grants, plan.sessions)...))
	b.signInAll()
	b.serve()
	b.impersonate()
	r.Progress("measuring the tunnel with iperf3")
	r.throughput(plan, b.throughput(plan.runs, plan.seconds))
	r.Add("")
}

// benchDir is a folder on a real disk: elsewhere an fsync costs nothing.
func benchDir(t *testing.T) string {
	t.Helper()
	parent := cmp.Or(os.Getenv("VPND_BENCH_DIR"), "out")
	if err := os.MkdirAll(parent, 0o755); err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp(parent, "bench-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if dir, err = filepath.Abs(dir); err != nil {
		t.Fatal(err)
	}
	return dir
}

// benchReport prints the figures.
type benchReport struct {
	report.Report
	restarted bool
}

func (r *benchReport) machine(dir string) {
	r.Machine("vpnd's benchmark")
	var fs unix.Statfs_t
	disk := "a disk"
	if err := unix.Statfs(dir, &fs); err == nil && fs.Type == unix.TMPFS_MAGIC {
		disk = "a tmpfs, where an fsync costs nothing: set VPND_BENCH_DIR to a folder on a disk"
	}
	r.Add("  the state is on %s; gateway, clients and callers share the CPUs", disk)
}

func (r *benchReport) memory(sizes []int, h []heap) {
	r.Head("Memory: live heap of the state, the log, the reconciler and the linux plane, after a collection;\none process that runs them as vpnd does, everybody with one device and no session")
	for i, n := range sizes {
		r.Add("  %6d devices   %7.1f MB in all, of it %7.1f MB are wireguard-go's", n, mb(h[i].All), mb(h[i].WireGuard))
	}
	last := len(sizes) - 1
	if last == 0 {
		return
	}
	n := float64(sizes[last] - sizes[0])
	per := (float64(h[last].All) - float64(h[last].WireGuard) - float64(h[0].All) + float64(h[0].WireGuard)) / n
	r.Judge(per <= 6<<10, "%.2f KiB for each user with a device, without wireguard-go (at most 6)", per/1024)
	r.Add("          %.1f KiB more are wireguard-go's", (float64(h[last].WireGuard)-float64(h[0].WireGuard))/n/1024)
	for _, k := range slices.Sorted(func(yield func(string) bool) {
		for k := range h[last].By {
			if !yield(k) {
				return
			}
		}
	}) {
		if grown := (float64(h[last].By[k]) - float64(h[0].By[k])) / n; grown > 50 {
			r.Add("          %6.0f bytes of it were asked for by %s", grown, k)
		}
	}
}

func mb(n uint64) float64 { return float64(n) / 1e6 }

func (r *benchReport) restart(n int, took []time.Duration, resident uint64) {
	if !r.restarted {
		r.restarted = true
		r.Head("Restart: from the start of the process after kill -9 until it serves, everybody signed in")
	}
	slices.Sort(took)
	r.Add("  %6d devices   %7.2f s (the median of %d); then %5.0f MB are resident, wireguard-go's included",
		n, took[len(took)/2].Seconds(), len(took), mb(resident))
}

func (r *benchReport) recalled(n, live int, first, last time.Duration) {
	what := "%6d devices, %4d of them connected: from the start of the process, handshakes begun with the first after %.2f s, with all after %.2f s"
	args := []any{n, live, first.Seconds(), last.Seconds()}
	switch bound := map[int]float64{10: 1.5, 10_000: 3}[n]; bound {
	case 0:
		r.Add("          "+what, args...)
	default:
		r.Judge(last.Seconds() <= bound, what+" (at most %.1f)", append(args, bound)...)
	}
}

func (r *benchReport) latencies(sizes []int, samples [][]sample) {
	of := func(i int, f func(sample) time.Duration) (out []time.Duration) {
		for _, s := range samples[i] {
			out = append(out, f(s))
		}
		return out
	}
	ms := func(d time.Duration) float64 { return float64(d) / 1e6 }
	fsync := func(s sample) time.Duration { return s.fsync }
	r.Head("Sign-in and revocation: a new person's phone each time, real packets every %v through Debian's wireguard-go,\neverybody else signed in; p50 / p99 of %d, in ms", tick, len(samples[0]))
	for i, n := range sizes {
		d := of(i, fsync)
		r.Add("  %6d devices   an fsync of the log's disk at that moment    %6.2f / %6.2f", n, ms(report.Quantile(d, .5)), ms(report.Quantile(d, .99)))
	}
	for _, x := range []struct {
		what  string
		f     func(sample) time.Duration
		bound time.Duration // over an fsync; 0: none
	}{
		{"POST of the code to the first packet through", func(s sample) time.Duration { return s.open }, 10 * time.Millisecond},
		{"POST of the code to its answer", func(s sample) time.Duration { return s.answered }, 0},
		{"revocation to the last packet through", func(s sample) time.Duration { return s.shut }, 20 * time.Millisecond},
		{"revocation to its answer", func(s sample) time.Duration { return s.told }, 0},
	} {
		for i, n := range sizes {
			d := of(i, x.f)
			r.Add("  %6d devices   %-44s %6.2f / %6.2f", n, x.what, ms(report.Quantile(d, .5)), ms(report.Quantile(d, .99)))
		}
		if x.bound == 0 {
			continue
		}
		for i, n := range sizes {
			over := report.Quantile(of(i, x.f), .99) - report.Quantile(of(i, fsync), .99)
			r.Judge(over <= x.bound, "p99 is %.2f ms over that of an fsync with %d devices (at most %.0f)", ms(over), n, ms(x.bound))
		}
		last := len(sizes) - 1
		for _, q := range []float64{.5, .99} {
			if last == 0 {
				break
			}
			ratio := float64(report.Quantile(of(last, x.f), q)) / float64(max(1, report.Quantile(of(0, x.f), q)))
			r.Judge(ratio <= 1.5, "p%.0f with %d devices is %.2f of that with %d (at most 1.5)", q*100, sizes[last], ratio, sizes[0])
		}
	}
}

func (r *benchReport) enrolments(sizes []int, devices, people [][]float64) {
	r.Head("Enrolments a second through gRPC with %d callers, each on the disk and in the tunnel when it is answered\n(the median of %d rounds; an address was never given twice)", callers, len(devices[0]))
	for i, n := range sizes {
		r.Add("  %6d devices   %6.0f devices of users who are there (DeviceService.AddDevice)", n, report.Median(devices[i]))
		r.Add("                   %6.0f new users with an invitation and a device (AddUser, then AddDevice)", report.Median(people[i]))
	}
	last := len(sizes) - 1
	for i, n := range sizes {
		r.Judge(report.Median(devices[i]) >= 1000, "%.0f a second with %d devices (at least 1,000)", report.Median(devices[i]), n)
	}
	if last == 0 {
		return
	}
	ratio := report.Median(devices[last]) / report.Median(devices[0])
	r.Judge(ratio >= 0.8, "the rate with %d devices is %.2f of that with %d (at least 0.8)", sizes[last], ratio, sizes[0])
}

func (r *benchReport) throughput(plan benchPlan, rates [2][]float64) {
	r.Head("The tunnel's throughput by iperf3, TCP, with %d sessions and %d grants, in Mbit/s; up and down\n(wireguard-go at both ends, the two iperf3 and the packet filter share the CPUs)", plan.sessions, plan.grants)
	r.Add("  %7.0f  %7.0f   vpnd as it runs (medians of %d)", report.Median(rates[0])/1e6, report.Median(rates[1])/1e6, plan.runs)
}
