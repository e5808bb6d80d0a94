package e2e

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// The resource in the private network: a web server on the ports given, on port 7001 who
// waits (wait), and on port 7000 a talker by TCP and by UDP. The talker counts what it hears, and sends a byte every
// 5 ms to whoever spoke first: a stream in both directions.

// web starts the resource with web servers on these ports.
func (w *world) web(ports ...string) *process {
	w.t.Helper()
	self, err := os.Executable()
	if err != nil {
		w.t.Fatal(err)
	}
	p := w.lan.start([]string{"VPND_E2E_RESOURCE=" + strings.Join(ports, ",")}, self, "-test.run", "^$")
	eventually(w.t, 10*time.Second, "the resource serves", func() error {
		if !strings.Contains(p.log.String(), "serving") {
			return fmt.Errorf("not yet")
		}
		return nil
	})
	return p
}

// resource is what web starts.
func resource(ports string) error {
	for p := range strings.SplitSeq(ports, ",") {
		l, err := net.Listen("tcp", ":"+p)
		if err != nil {
			return err
		}
		go http.Serve(l, http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
			fmt.Fprintf(rw, "resource to %s\n", r.RemoteAddr)
		}))
	}
	l, err := net.Listen("tcp", ":7000")
	if err != nil {
		return err
	}
	waiter, err := net.Listen("tcp", ":7001")
	if err != nil {
		return err
	}
	go func() {
		for {
			c, err := waiter.Accept()
			if err != nil {
				return
			}
			go wait(c)
		}
	}()
	u, err := net.ListenPacket("udp", ":7000")
	if err != nil {
		return err
	}
	go talkUDP(u)
	fmt.Println("serving")
	for {
		c, err := l.Accept()
		if err != nil {
			return err
		}
		go talkTCP(c)
	}
}

// patience is how long a stream that is open may take to bring its first byte.
const patience = 2 * time.Second

// beat is the pause between two bytes of a stream.
const beat = 5 * time.Millisecond

func talkTCP(c net.Conn) {
	defer c.Close()
	go io.Copy(io.Discard, c)
	for {
		if _, err := c.Write([]byte{1}); err != nil {
			return
		}
		time.Sleep(beat)
	}
}

// talkUDP streams to each caller for a minute from its first word on, whatever it hears.
func talkUDP(u net.PacketConn) {
	seen := map[string]bool{}
	buf := make([]byte, 1500)
	for {
		_, from, err := u.ReadFrom(buf)
		if err != nil {
			return
		}
		if seen[from.String()] {
			continue
		}
		seen[from.String()] = true
		go func() {
			for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(beat) {
				u.WriteTo([]byte{1}, from) // an ICMP error is no reason to stop
			}
		}()
	}
}

// stream is an open flow of a client to the talker.
type stream struct {
	name     string
	conn     net.Conn
	received atomic.Int64 // bytes
	last     atomic.Int64 // when, in Unix nanoseconds
	failed   atomic.Bool  // reading has ended with an error: the flow is dead
	mute     atomic.Bool  // send nothing more
	stop     context.CancelFunc
}

// openStream opens a flow from the host to the talker at addr, and keeps sending.
func openStream(t *testing.T, h *host, network, addr string) (*stream, error) {
	t.Helper()
	ctx, stop := context.WithCancel(context.Background())
	c, err := h.dialer(ctx, network, addr)
	if err != nil {
		stop()
		return nil, err
	}
	s := &stream{name: network + " to " + addr, conn: c, stop: stop}
	t.Cleanup(s.close)
	go func() {
		for ctx.Err() == nil {
			if !s.mute.Load() {
				c.Write([]byte{1}) // the reader notices when the flow is dead
			}
			time.Sleep(beat)
		}
	}()
	go func() {
		buf := make([]byte, 64)
		for {
			n, err := c.Read(buf)
			if n > 0 {
				s.received.Add(int64(n))
				s.last.Store(time.Now().UnixNano())
			}
			if err != nil && network == "udp" && !errors.Is(err, net.ErrClosed) {
				time.Sleep(beat) // ICMP refusals: the flow may live on
				continue
			}
			if err != nil {
				s.failed.Store(true)
				return
			}
		}
	}()
	end := time.Now().Add(patience * slow)
	for s.received.Load() == 0 {
		if time.Now().After(end) || s.failed.Load() {
			s.close()
			return nil, fmt.Errorf("%s: nothing comes back", s.name)
		}
		time.Sleep(10 * time.Millisecond)
	}
	return s, nil
}

func (s *stream) close() { s.stop(); s.conn.Close() }

// mustStream is openStream where a failure ends the test.
func mustStream(t *testing.T, h *host, network, addr string) *stream {
	t.Helper()
	s, err := openStream(t, h, network, addr)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// silent fails the test if anything is received after this moment and a little grace
// for what was on its way.
func silent(t *testing.T, streams ...*stream) {
	t.Helper()
	time.Sleep(100 * time.Millisecond * slow)
	before := make([]int64, len(streams))
	for i, s := range streams {
		before[i] = s.received.Load()
	}
	time.Sleep(700 * time.Millisecond)
	for i, s := range streams {
		if n := s.received.Load() - before[i]; n > 0 {
			t.Errorf("%s still brought %d bytes after it was closed", s.name, n)
		}
	}
}

// alive fails the test unless every stream still brings something.
func alive(t *testing.T, streams ...*stream) {
	t.Helper()
	before := make([]int64, len(streams))
	for i, s := range streams {
		before[i] = s.received.Load()
	}
	time.Sleep(300 * time.Millisecond * slow)
	for i, s := range streams {
		if s.received.Load() == before[i] {
			t.Errorf("%s is dead and should live", s.name)
		}
	}
}

// count counts the packets of a filter expression that arrive at the private network
// until the function that it returns is called.
func (w *world) count(expr string) (stop func() int) {
	w.t.Helper()
	p := w.lan.start(nil, "tcpdump", "-n", "-l", "-i", "eth0", "--immediate-mode", expr)
	eventually(w.t, 10*time.Second, "tcpdump listens", func() error {
		if !strings.Contains(p.log.String(), "listening on") {
			return fmt.Errorf("not yet")
		}
		return nil
	})
	return func() int {
		time.Sleep(200 * time.Millisecond * slow)
		p.stop(w.t, syscall.SIGINT)
		n := 0
		for line := range strings.Lines(p.log.String()) {
			if strings.Contains(line, " IP ") || strings.Contains(line, " IP6 ") {
				n++
			}
		}
		return n
	}
}
