// Command mutate asks how much of what is decided the tests would notice if it were wrong. It
// draws lines at random from the code that decides, turns one operator on each round, and
// runs the package's tests, then those of the packages above it, until one fails. It is run
// by hand (`make mutate`), as it takes a while; a log lets it go on where it was stopped.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
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
	{"acl/rules", []string{"verdict.go", "allows.go", "tables.go", "compile.go"}, []string{"acl/review"}},
	{"acl/language", []string{"grants.go", "hours.go", "ports.go", "resolve.go", "names.go", "selectors.go"}, []string{"acl/rules"}},
	{"peers", []string{"session.go", "lockout.go", "enrol.go", "device.go", "user.go", "request.go", "level.go", "invitation.go", "key.go"}, []string{"internal/control"}},
	{"internal/control", []string{"code.go", "signin.go", "factor.go", "enrol.go", "totp.go"}, []string{"internal/api"}},
	{"internal/dataplane/netstack", []string{"filter.go", "session.go"}, nil},
	{"internal/owner", []string{"owner.go", "walk.go", "names.go"}, nil},
}

// turned is what becomes of an operator.
var turned = map[token.Token]token.Token{
	token.EQL: token.NEQ, token.NEQ: token.EQL, token.LSS: token.LEQ, token.LEQ: token.LSS,
	token.GTR: token.GEQ, token.GEQ: token.GTR, token.LAND: token.LOR, token.LOR: token.LAND,
}

// mutant is one changed operator.
type mutant struct {
	Area       int
	File       string
	Line       int
	Offset     int
	From, To   string
	Killed     bool
	By, Detail string
}

func (m mutant) String() string {
	return fmt.Sprintf("%s:%d  %s -> %s", m.File, m.Line, m.From, m.To)
}

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
	r := rand.New(rand.NewPCG(seed, seed))
	r.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	lines := map[string]bool{}
	all = slices.DeleteFunc(all, func(m mutant) bool { // one for each line
		key := fmt.Sprint(m.File, m.Line)
		seen := lines[key]
		lines[key] = true
		return seen
	})
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
	killed, done, begin := 0, 0, time.Now()
	var mu sync.Mutex
	var wg sync.WaitGroup
	work := make(chan mutant)
	for range parallel {
		wg.Go(func() {
			for m := range work {
				old, ok := known[m.String()]
				if ok {
					m = old
				} else {
					m = try(m)
				}
				mu.Lock()
				done++
				word := "SURVIVED"
				if m.Killed {
					killed++
					word = "killed"
				}
				fmt.Printf("%3d/%d  %-8s  %s  %s\n", done, n, word, m, m.By)
				if b, err := json.Marshal(m); err == nil && !ok {
					f.Write(append(b, '\n')) // what is lost is tried again
				}
				mu.Unlock()
			}
		})
	}
	for _, m := range all[:min(n, len(all))] {
		work <- m
	}
	close(work)
	wg.Wait()
	fmt.Printf("%d of %d killed, seed %d, in %v\n", killed, done, seed, time.Since(begin).Round(time.Second))
	return nil
}

// candidates are all operators that can be turned, in order.
func candidates() (all []mutant, err error) {
	for i, a := range areas {
		for _, name := range a.files {
			path := filepath.Join(a.dir, name)
			fset := token.NewFileSet()
			file, err := parser.ParseFile(fset, path, nil, 0)
			if err != nil {
				return nil, err
			}
			for _, d := range file.Decls {
				fn, ok := d.(*ast.FuncDecl)
				if !ok || fn.Body == nil || fn.Name.Name == "String" || fn.Name.Name == "Error" {
					continue
				}
				ast.Inspect(fn.Body, func(node ast.Node) bool {
					add := func(pos token.Pos, from, to string) {
						p := fset.Position(pos)
						all = append(all, mutant{Area: i, File: path, Line: p.Line, Offset: p.Offset, From: from, To: to})
					}
					switch x := node.(type) {
					case *ast.BinaryExpr:
						if to, ok := turned[x.Op]; ok {
							add(x.OpPos, x.Op.String(), to.String())
						}
					case *ast.UnaryExpr:
						if x.Op == token.NOT {
							add(x.OpPos, "!", "")
						}
					case *ast.Ident:
						if x.Name == "true" {
							add(x.Pos(), "true", "false")
						} else if x.Name == "false" {
							add(x.Pos(), "false", "true")
						}
					}
					return true
				})
			}
		}
	}
	return all, nil
}

// try runs the tests with the mutant in the place of the file. One that does not compile
// counts as killed: the compiler has noticed.
func try(m mutant) mutant {
	dir, err := os.MkdirTemp("", "mutate-")
	if err != nil {
		m.Detail = err.Error()
		return m
	}
	defer os.RemoveAll(dir)
	text, err := os.ReadFile(m.File)
	if err != nil {
		m.Detail = err.Error()
		return m
	}
	changed := string(text[:m.Offset]) + m.To + string(text[m.Offset+len(m.From):])
	full, err := filepath.Abs(m.File)
	if err != nil {
		m.Detail = err.Error()
		return m
	}
	place, overlay := filepath.Join(dir, "mutant.go"), filepath.Join(dir, "overlay.json")
	b, err := json.Marshal(map[string]any{"Replace": map[string]string{full: place}})
	if err == nil {
		err = os.WriteFile(place, []byte(changed), 0o644)
	}
	if err == nil {
		err = os.WriteFile(overlay, b, 0o644)
	}
	if err != nil {
		m.Detail = err.Error()
		return m
	}
	a := areas[m.Area]
	for _, pkg := range append([]string{a.dir}, a.above...) {
		ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
		out, err := exec.CommandContext(ctx, "go", "test", "-overlay", overlay, "-short", "-failfast", "-timeout", "90s", "./"+pkg).CombinedOutput()
		cancel()
		if err != nil {
			m.Killed, m.By = true, "by "+pkg
			if i := strings.Index(string(out), "--- FAIL: "); i >= 0 {
				m.By += " " + strings.Fields(string(out[i:]))[2]
			}
			return m
		}
	}
	return m
}

// read gives what a former run has found.
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
		if json.Unmarshal(s.Bytes(), &m) == nil { // a torn last line
			known[m.String()] = m
		}
	}
	return known, nil
}
