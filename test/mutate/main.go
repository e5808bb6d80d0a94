// Command mutate asks how much of what is decided the tests would notice if it were wrong. It
// draws lines at random from the code that decides, changes one thing on each, and runs the
// package's tests, then those of the packages above it, until one fails. It is run by hand
// (`make mutate`), as it takes a while; a log lets it go on where it was stopped.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

// area is code that decides: the files of a package, and whose tests would notice.
type area struct {
	dir   string
	files []string
	above []string // packages whose tests are asked when the package's own say nothing
}

var areas = []area{
	{"acl/rules", []string{"verdict.go", "allows.go", "tables.go", "compile.go"}, []string{"acl/review", "internal/dataplane/netstack"}},
	{"acl/language", []string{"grants.go", "hours.go", "ports.go", "resolve.go", "names.go", "selectors.go"}, []string{"acl/review", "acl/rules"}},
	{"peers", []string{"session.go", "lockout.go", "enrol.go", "device.go", "user.go", "request.go", "level.go", "invitation.go", "key.go"}, []string{"internal/control"}},
	{"internal/control", []string{"code.go", "signin.go", "factor.go", "enrol.go", "totp.go", "leader.go"}, []string{"internal/api", "portal"}},
	{"internal/dataplane/netstack", []string{"filter.go", "session.go"}, nil},
	{"internal/owner", []string{"owner.go", "walk.go", "names.go"}, nil},
}

// packages are those whose tests an area's mutants meet, in order.
func (a area) packages() []string { return append([]string{a.dir}, a.above...) }

func main() {
	n := flag.Int("n", 100, "how many lines")
	seed := flag.Uint64("seed", 1, "of the draw")
	parallel := flag.Int("p", 2, "how many at a time")
	log := flag.String("log", ".run/mutate.jsonl", "what is known so far")
	flag.Parse()
	syscall.Setpriority(syscall.PRIO_PROCESS, 0, 19) // refused: it runs all the same
	if err := run(*n, *seed, *parallel, *log); err != nil {
		fmt.Fprintf(os.Stderr, "mutate: %v\n", err)
		os.Exit(1)
	}
}

func run(n int, seed uint64, parallel int, log string) error {
	all, err := candidates()
	if err != nil {
		return err
	}
	if all, err = draw(all, seed); err != nil {
		return err
	}
	known, err := read(log)
	if err != nil {
		return err
	}
	f, err := os.OpenFile(log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer f.Close()
	fmt.Printf("%d lines that decide, %d of them drawn with seed %d\n", len(all), n, seed)
	took, err := baseline(all[:min(2*n, len(all))], known)
	if err != nil {
		return err
	}
	begin := time.Now()
	ends := map[end]int{}
	each(all, n, parallel, func(m mutant) mutant {
		if old, ok := known[m.key()]; ok {
			return old
		}
		return try(m, took)
	}, func(m mutant) {
		ends[m.End]++
		if m.End == unbuilt {
			fmt.Printf("         %-9s  %s: another is drawn\n", m.End, m)
		} else {
			fmt.Printf("%4d/%d %-9s  %s  %s\n", ends[killed]+ends[timedOut]+ends[survived], n, m.End, m, m.By)
		}
		if _, ok := known[m.key()]; ok {
			return
		}
		if b, err := json.Marshal(m); err == nil {
			f.Write(append(b, '\n')) // what is lost is tried again
		}
	})
	noticed := ends[killed] + ends[timedOut]
	fmt.Printf("%d of %d noticed (%d of them as the tests hung), seed %d, in %v; %d more did not build\n",
		noticed, noticed+ends[survived], ends[timedOut], seed, time.Since(begin).Round(time.Second), ends[unbuilt])
	return nil
}

// draw gives the mutants in an order of chance, one for each line, without those that change
// nothing.
func draw(all []mutant, seed uint64) ([]mutant, error) {
	r := rand.New(rand.NewPCG(seed, seed))
	r.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	all, err := unlessEquivalent(all)
	if err != nil {
		return nil, err
	}
	lines := map[string]bool{}
	return slices.DeleteFunc(all, func(m mutant) bool {
		key := fmt.Sprint(m.File, m.Line)
		seen := lines[key]
		lines[key] = true
		return seen
	}), nil
}

// each tries mutants in order, some at a time, until n of them were built, and tells of each.
func each(all []mutant, n, parallel int, try func(mutant) mutant, tell func(mutant)) {
	var mu sync.Mutex
	next, asked := 0, 0 // asked: those that were built or are being tried
	freed := sync.NewCond(&mu)
	var wg sync.WaitGroup
	running := 0
	for range parallel {
		wg.Go(func() {
			mu.Lock()
			defer mu.Unlock()
			for {
				for asked == n && running > 0 {
					freed.Wait() // one of the last may not build
				}
				if asked == n || next == len(all) {
					return
				}
				m := all[next]
				next++
				asked++
				running++
				mu.Unlock()
				m = try(m)
				mu.Lock()
				running--
				if m.End == unbuilt {
					asked--
				}
				tell(m)
				freed.Broadcast()
			}
		})
	}
	wg.Wait()
}

// baseline runs the tests that will be asked on the code as it is: they must pass. It gives how
// long each package took.
func baseline(all []mutant, known map[string]mutant) (map[string]time.Duration, error) {
	took := map[string]time.Duration{}
	for _, m := range all {
		if _, ok := known[m.key()]; ok {
			continue
		}
		for _, pkg := range areas[m.Area].packages() {
			if took[pkg] != 0 {
				continue
			}
			begin := time.Now()
			out, err := exec.Command("go", "test", "-vet=off", "-short", "-count=1", "./"+pkg).CombinedOutput()
			if err != nil {
				return nil, fmt.Errorf("the tests of %s fail on the code as it is:\n%s", pkg, out)
			}
			took[pkg] = time.Since(begin)
			fmt.Printf("%s passes in %v\n", pkg, took[pkg].Round(time.Second))
		}
	}
	return took, nil
}

// try runs the tests with the mutant in the place of the file. It takes those for hung that last
// four times as long as on the code as it is, and a minute.
func try(m mutant, took map[string]time.Duration) mutant {
	m.End = survived
	overlay, remove, err := place(m)
	if err != nil {
		m.Detail = err.Error()
		return m
	}
	defer remove()
	a := areas[m.Area]
	if out, err := exec.Command("go", "build", "-overlay", overlay, "./"+a.dir).CombinedOutput(); err != nil {
		m.End, m.Detail = unbuilt, string(out)
		return m
	}
	for _, pkg := range a.packages() {
		limit := 4*took[pkg] + time.Minute
		ctx, cancel := context.WithTimeout(context.Background(), limit+time.Minute) // it builds before
		out, err := exec.CommandContext(ctx, "go", "test", "-vet=off", "-overlay", overlay, "-short", "-failfast",
			"-timeout", limit.String(), "./"+pkg).CombinedOutput()
		hung := ctx.Err() != nil || strings.Contains(string(out), "panic: test timed out after ")
		cancel()
		switch {
		case hung:
			m.End, m.By = timedOut, "by "+pkg
			return m
		case err != nil:
			m.End, m.By = killed, "by "+pkg
			if i := strings.Index(string(out), "--- FAIL: "); i >= 0 {
				m.By += " " + strings.Fields(string(out[i:]))[2]
			}
			return m
		}
	}
	return m
}

// place writes the mutated file and gives the overlay that puts it in the place of the file.
func place(m mutant) (overlay string, remove func(), err error) {
	text, err := os.ReadFile(m.File)
	if err != nil {
		return "", nil, err
	}
	full, err := filepath.Abs(m.File)
	if err != nil {
		return "", nil, err
	}
	dir, err := os.MkdirTemp("", "mutate-")
	if err != nil {
		return "", nil, err
	}
	remove = func() { os.RemoveAll(dir) }
	changed := string(text[:m.Offset]) + m.To + string(text[m.Offset+len(m.From):])
	mutated, overlay := filepath.Join(dir, "mutant.go"), filepath.Join(dir, "overlay.json")
	b, err := json.Marshal(map[string]any{"Replace": map[string]string{full: mutated}})
	err = errors.Join(err, os.WriteFile(mutated, []byte(changed), 0o644), os.WriteFile(overlay, b, 0o644))
	if err != nil {
		remove()
		return "", nil, err
	}
	return overlay, remove, nil
}

// read gives what a former run has found. What survived is tried again, as the tests may be
// others.
func read(path string) (map[string]mutant, error) {
	known := map[string]mutant{}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, err
	}
	f, err := os.Open(path)
	if os.IsNotExist(err) {
		return known, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		var m mutant
		if json.Unmarshal(s.Bytes(), &m) == nil && m.Sum != "" && m.End != survived { // or a torn last line
			known[m.key()] = m
		}
	}
	return known, nil
}
