// Package report prints what the benchmarks measure (make bench): each figure beside what
// was promised, on the standard output; what is going on, on the standard error.
package report

import (
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Report is one run of a benchmark. The zero Report is ready.
type Report struct{ begun time.Time }

// Progress says what is going on.
func (r *Report) Progress(format string, args ...any) {
	if r.begun.IsZero() {
		r.begun = time.Now()
	}
	fmt.Fprintf(os.Stderr, "%4.0fs  %s\n", time.Since(r.begun).Seconds(), fmt.Sprintf(format, args...))
}

// Add prints a line.
func (r *Report) Add(format string, args ...any) { fmt.Printf(format+"\n", args...) }

// Head begins a section.
func (r *Report) Head(format string, args ...any) { r.Add("\n"+format, args...) }

// Judge prints a figure beside what was promised, and whether that was held.
func (r *Report) Judge(ok bool, what string, args ...any) {
	verdict := "held  "
	if !ok {
		verdict = "MISSED"
	}
	r.Add("  %s  %s", verdict, fmt.Sprintf(what, args...))
}

// Machine says what runs the benchmark, and how busy it is.
func (r *Report) Machine(what string) {
	var u unix.Utsname
	_ = unix.Uname(&u)
	r.Add("%s, %s", what, time.Now().UTC().Format("2 January 2006 15:04 MST"))
	r.Add("  %d CPUs, Linux %s, %s; load average before: %s", runtime.NumCPU(), unix.ByteSliceToString(u.Release[:]), runtime.Version(), Load())
}

// Load is the machine's load average over 1, 5 and 15 minutes.
func Load() string {
	text, _ := os.ReadFile("/proc/loadavg")
	f := strings.Fields(string(text))
	return strings.Join(f[:min(3, len(f))], " ")
}

// Median of a list that is not empty.
func Median[T float64 | time.Duration](list []T) T { return Quantile(list, .5) }

// Quantile of a list that is not empty.
func Quantile[T float64 | time.Duration](list []T, q float64) T {
	s := slices.Sorted(slices.Values(list))
	return s[min(int(q*float64(len(s))), len(s)-1)]
}
