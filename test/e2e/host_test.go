package e2e

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// worlds numbers what must not collide: namespaces and interfaces.
var worlds atomic.Int32

// host is a network namespace with what runs in it.
type host struct {
	t    *testing.T
	name string // of the namespace
}

// process is a program that runs in a host until the test ends.
type process struct {
	cmd  *exec.Cmd
	log  *logBuffer
	done chan struct{} // closed when it has ended
}

// logBuffer collects a program's output, and can wait for a text in it.
type logBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

func newHost(t *testing.T, name string) *host {
	t.Helper()
	h := &host{t: t, name: name}
	must(t, "ip", "netns", "add", name)
	t.Cleanup(func() { exec.Command("ip", "netns", "del", name).Run() })
	h.run("ip", "link", "set", "lo", "up")
	// No link-local address that comes seconds later: a browser drops what is under way then.
	h.run("sh", "-c", "echo 0 > /proc/sys/net/ipv6/conf/default/accept_dad")
	return h
}

// must runs a command outside of any host and gives its output.
func must(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

// slow stretches time-outs where the machine is emulated.
var slow = func() time.Duration {
	if n, err := strconv.Atoi(os.Getenv("VPND_E2E_SLOW")); err == nil {
		return time.Duration(n)
	}
	return 1
}()

// limit bounds every command that a test runs.
var limit = 40 * time.Second * slow

// try runs a command in the host and gives its standard output and its error.
func (h *host) try(args ...string) (string, error) { return h.tryInput("", args...) }

func (h *host) tryInput(input string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	c := exec.CommandContext(ctx, "ip", append([]string{"netns", "exec", h.name}, args...)...)
	c.Stdin = strings.NewReader(input)
	var out, errs bytes.Buffer
	c.Stdout, c.Stderr = &out, &errs
	if err := c.Run(); err != nil {
		return out.String(), fmt.Errorf("%s: %s: %w: %s", h.name, strings.Join(args, " "), err, strings.TrimSpace(errs.String()))
	}
	return out.String(), nil
}

// run is try where a failure ends the test.
func (h *host) run(args ...string) string {
	h.t.Helper()
	out, err := h.try(args...)
	if err != nil {
		h.t.Fatalf("%v\n%s", err, out)
	}
	return out
}

// start runs a program until the test ends; its output is shown when the test fails.
func (h *host) start(env []string, args ...string) *process {
	h.t.Helper()
	c := exec.Command("ip", append([]string{"netns", "exec", h.name}, args...)...)
	c.Env = append(os.Environ(), env...)
	return launch(h.t, h.name, c)
}

// launch runs a command of a host until the test ends; its output is shown when that fails.
func launch(t *testing.T, name string, c *exec.Cmd) *process {
	t.Helper()
	p := &process{cmd: c, log: &logBuffer{}, done: make(chan struct{})}
	c.Stdout, c.Stderr = p.log, p.log
	// What the program leaves behind keeps its output open, a server's child for a minute
	// and more: it is of the program's process group, and goes with it.
	if c.SysProcAttr == nil {
		c.SysProcAttr = &syscall.SysProcAttr{}
	}
	c.SysProcAttr.Setpgid = true
	c.WaitDelay = 2 * time.Second
	if err := c.Start(); err != nil {
		t.Fatalf("starting %s: %v", filepath.Base(c.Path), err)
	}
	go func() { p.cmd.Wait(); close(p.done) }()
	t.Cleanup(func() {
		p.signal(syscall.SIGTERM)
		select {
		case <-p.done:
		case <-time.After(15 * time.Second):
			p.signal(syscall.SIGKILL)
			<-p.done
		}
		syscall.Kill(-c.Process.Pid, syscall.SIGKILL)
		if t.Failed() {
			t.Logf("-- output of %s in %s:\n%s", strings.Join(c.Args[:min(5, len(c.Args))], " "), name, tail(p.log.String(), 6000))
		}
	})
	return p
}

func tail(s string, n int) string {
	if len(s) > n {
		return "…" + s[len(s)-n:]
	}
	return s
}

// signal sends s to the program; one that has ended is left alone.
func (p *process) signal(s syscall.Signal) {
	select {
	case <-p.done:
	default:
		p.cmd.Process.Signal(s)
	}
}

// stop ends the program with s and waits for it.
func (p *process) stop(t *testing.T, s syscall.Signal) {
	t.Helper()
	p.signal(s)
	select {
	case <-p.done:
	case <-time.After(20 * time.Second):
		t.Fatalf("it did not end on %v:\n%s", s, tail(p.log.String(), 4000))
	}
}

// connect lays a cable between two hosts.
func connect(t *testing.T, a *host, ifA string, b *host, ifB string) {
	t.Helper()
	must(t, "ip", "link", "add", ifA, "netns", a.name, "type", "veth", "peer", "name", ifB, "netns", b.name)
	a.run("ip", "link", "set", ifA, "up")
	b.run("ip", "link", "set", ifB, "up")
}

// addr gives an interface an address at once, without duplicate detection.
func (h *host) addr(dev, cidr string) {
	h.t.Helper()
	args := []string{"ip", "addr", "add", cidr, "dev", dev}
	if strings.Contains(cidr, ":") {
		args = append(args, "nodad")
	}
	h.run(args...)
}

// eventually repeats check until it gives no error. Deadlines that vpnd promises are
// generous time-outs here.
func eventually(t *testing.T, within time.Duration, what string, check func() error) {
	t.Helper()
	end := time.Now().Add(within * slow)
	for {
		err := check()
		if err == nil {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("%s: not within %v: %v", what, within, err)
		}
		time.Sleep(20 * time.Millisecond)
	}
}
