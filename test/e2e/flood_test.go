package e2e

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

const (
	floodFiles   = 4096   // descriptors that vpnd may have
	floodSilent  = 25_000 // connections that say nothing
	floodSources = 48     // addresses of each family that they come from
)

// Connections that say nothing, of strangers from many networks to the public portal and of a
// device to the one inside the tunnel, ten times as many as vpnd may have descriptors: what is
// changed by hand is put right all the same, people sign in, vpnctl answers, and the log
// stays short.
func TestSilentConnections(t *testing.T) {
	both(t, func(t *testing.T, w *world) {
		w.files = floodFiles
		w.startVpnd()
		alice, mallory := w.person("alice", "phone"), w.person("mallory", "laptop")
		strangers := w.public("flood")
		for i := range floodSources {
			strangers.run("ip", "addr", "add", fmt.Sprintf("192.0.2.%d/24", 100+i), "dev", "eth0")
			strangers.run("ip", "-6", "addr", "add", fmt.Sprintf("2001:db8:77:%x::1/64", i), "dev", "lo", "nodad")
		}
		link := strings.TrimSpace(strangers.run("sh", "-c", "ip -6 -o addr show dev eth0 scope global | sed 's/.*inet6 \\([^/]*\\).*/\\1/'"))
		w.gw.run("ip", "-6", "route", "add", "2001:db8:77::/48", "via", link)

		ctx, stop := context.WithCancel(t.Context())
		var floods sync.WaitGroup
		defer func() { stop(); floods.Wait() }()
		var tried atomic.Int64
		flood := func(h *host, to string, from func(i int) string) {
			const workers = 8
			for n := range workers {
				floods.Go(func() {
					h.in(func() error { knock(ctx, &tried, to, func(i int) string { return from(i*workers + n) }); return nil })
				})
			}
		}
		flood(strangers, gwPublic4+":8443", func(i int) string { return fmt.Sprintf("192.0.2.%d", 100+i%floodSources) })
		flood(strangers, "["+gwPublic6+"]:8443", func(i int) string { return fmt.Sprintf("2001:db8:77:%x::1", i%floodSources) })
		flood(mallory.host, tunnel4+":80", func(int) string { return mallory.addr4 })
		eventually(t, 60*time.Second, "the flood is there", func() error {
			if n := tried.Load(); n < floodSilent {
				return fmt.Errorf("%d of %d connections", n, floodSilent)
			}
			return nil
		})
		if open, err := os.ReadDir(filepath.Join("/proc", fmt.Sprint(w.vpndPID()), "fd")); err != nil || len(open) > floodFiles*3/4 {
			t.Errorf("vpnd has %d descriptors open, %v", len(open), err)
		} else {
			t.Logf("vpnd has %d descriptors open", len(open))
		}

		began := time.Now()
		alice.signIn()
		t.Logf("signing in took %v", time.Since(began).Round(time.Millisecond))
		var took []time.Duration
		for range 100 {
			c := alice.host.client() // a new connection each
			at := time.Now()
			r, err := c.Get("http://" + tunnel4 + "/api/v1/session")
			if err != nil {
				t.Fatal(err)
			}
			r.Body.Close()
			c.CloseIdleConnections()
			took = append(took, time.Since(at))
		}
		slices.Sort(took)
		t.Logf("asking for the session took %v in the middle, at most %v", took[50].Round(time.Millisecond), took[99].Round(time.Millisecond))
		w.vpnctl("status")
		if w.plane == "linux" {
			w.gw.run("ip", "addr", "del", tunnel4+"/16", "dev", w.iface)
			began = time.Now()
			eventually(t, 20*time.Second, "an address comes back", func() error {
				if out := w.gw.run("ip", "addr", "show", "dev", w.iface); !strings.Contains(out, tunnel4) {
					return fmt.Errorf("%s", out)
				}
				return nil
			})
			t.Logf("an address was back after %v", time.Since(began).Round(time.Millisecond))
		}
		alice.signOut()
		alice.signIn()

		refused := 0
		for line := range strings.Lines(w.vpnd.log.String()) {
			if strings.Contains(line, "refused") {
				refused++
			}
			if strings.Contains(line, "too many open files") {
				t.Error("vpnd ran out of descriptors: " + line)
			}
		}
		if minutes := int(time.Since(began)/time.Minute) + 3; refused == 0 || refused > 2*minutes {
			t.Errorf("%d lines of refused connections:\n%s", refused, tail(w.vpnd.log.String(), 2000))
		}
	})
}

// knock opens connections, says nothing, and keeps the last of them, until ctx ends.
func knock(ctx context.Context, tried *atomic.Int64, to string, from func(i int) string) {
	const kept = 200
	var open [kept]net.Conn
	defer func() {
		for _, c := range open {
			if c != nil {
				c.Close()
			}
		}
	}()
	for i := 0; ctx.Err() == nil; i++ {
		d := net.Dialer{Timeout: time.Second, LocalAddr: &net.TCPAddr{IP: net.ParseIP(from(i))}}
		d.Control = func(_, _ string, c syscall.RawConn) error {
			return c.Control(func(fd uintptr) { // no TIME_WAIT: the ports must last
				syscall.SetsockoptLinger(int(fd), syscall.SOL_SOCKET, syscall.SO_LINGER, &syscall.Linger{Onoff: 1})
			})
		}
		c, err := d.DialContext(ctx, "tcp", to)
		tried.Add(1)
		if err != nil {
			time.Sleep(time.Millisecond)
			continue
		}
		if old := open[i%kept]; old != nil {
			old.Close()
		}
		open[i%kept] = c
	}
}

// vpndPID is the daemon's process, which the shell in front of it has become.
func (w *world) vpndPID() int { return w.vpnd.cmd.Process.Pid }
