package relay

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"runtime"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// descriptors raises the process's limit, and says how many there may be.
func descriptors(t testing.TB, want uint64) uint64 {
	t.Helper()
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	if limit.Cur >= want {
		return limit.Cur
	}
	more := unix.Rlimit{Cur: want, Max: max(want, limit.Max)}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &more); err != nil {
		return limit.Cur
	}
	t.Cleanup(func() { unix.Setrlimit(unix.RLIMIT_NOFILE, &limit) })
	return want
}

func openDescriptors(t testing.TB) int {
	t.Helper()
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(fds)
}

// 10,000 connections are carried at once, each with two descriptors of the relay's, and are cut
// in less than a second.
func TestTenThousandConnections(t *testing.T) {
	n := 10_000
	if testing.Short() {
		n = 2_000
	}
	// Two descriptors are the relay's, one the client's and one the server's.
	if have := descriptors(t, uint64(4*n+1000)); have < uint64(4*n+1000) {
		n = int(have-1000) / 4
		t.Logf("this process may have %d descriptors: %d connections", have, n)
	}
	o := anyLocal()
	o.Flows, o.PerDevice = n, n
	r := newRelay(t, o)
	server := listen(t, "tcp4", "127.0.0.1:0")
	near := listen(t, "tcp4", "127.0.0.1:0")
	target := Target{Addrs: []netip.AddrPort{portOf(server.Addr())}}
	var servers sync.WaitGroup
	servers.Go(func() {
		for {
			c, err := server.Accept()
			if err != nil {
				return
			}
			servers.Go(func() {
				defer c.Close()
				b := make([]byte, 64)
				for {
					n, err := c.Read(b)
					if err != nil {
						return
					}
					c.Write(b[:n])
				}
			})
		}
	})
	var flows sync.WaitGroup
	go func() {
		for {
			c, err := near.Accept()
			if err != nil {
				return
			}
			flows.Go(func() {
				call := caller
				call.Client = portOf(c.RemoteAddr())
				r.ServeTCP(t.Context(), c.(*net.TCPConn), call, target)
			})
		}
	}()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	clients := make([]net.Conn, 0, n)
	ping := func(c net.Conn, s string) error {
		b := make([]byte, len(s))
		if _, err := c.Write([]byte(s)); err != nil {
			return err
		}
		c.SetReadDeadline(time.Now().Add(30 * time.Second))
		if _, err := io.ReadFull(c, b); err != nil || string(b) != s {
			return fmt.Errorf("%q, %w", b, errors.Join(err))
		}
		return nil
	}
	start := time.Now()
	for i := range n {
		// Each from an address of its own, as the ports of one would not do.
		d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 50, byte(i>>8), byte(i))}}
		c, err := d.Dial("tcp4", near.Addr().String())
		if err != nil {
			t.Fatal(i, err)
		}
		defer c.Close()
		if err := ping(c, fmt.Sprint(i)); err != nil {
			t.Fatal(i, err)
		}
		clients = append(clients, c)
	}
	runtime.ReadMemStats(&after)
	fds := openDescriptors(t)
	t.Logf("%d connections in %v; %d descriptors, %d of the pipes; %d KB of memory for each with both of its ends", n, time.Since(start).Round(time.Millisecond), fds, fds-4*n, (after.Sys-before.Sys)/uint64(n)>>10)
	if r.Len() != n || fds > 4*n+2*keptPipes+100 {
		t.Errorf("%d flows, %d descriptors", r.Len(), fds)
	}
	for i := range 100 { // those that waited are carried as well
		if err := ping(clients[i*n/100], "again"); err != nil {
			t.Error(i, err)
		}
	}
	start = time.Now()
	if cut := r.Cut(func(Caller) bool { return true }); cut != n {
		t.Errorf("%d cut", cut)
	}
	flows.Wait()
	t.Logf("cut in %v", time.Since(start).Round(time.Millisecond))
	if time.Since(start) > 5*time.Second {
		t.Errorf("cut after %v", time.Since(start))
	}
	server.Close()
	servers.Wait()
}

// Without descriptors for pipes bytes are copied.
func TestWithoutPipes(t *testing.T) {
	r := newRelay(t, anyLocal())
	l := listen(t, "tcp4", "127.0.0.1:0")
	client, done := call(t, r, caller, Target{Addrs: []netip.AddrPort{portOf(l.Addr())}})
	server := accept(t, l).(*net.TCPConn)
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	none := limit
	none.Cur = 1 // what is open stays
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &none); err != nil {
		t.Fatal(err)
	}
	defer unix.Setrlimit(unix.RLIMIT_NOFILE, &limit)
	write(t, client, "hello")
	read(t, server, "hello")
	write(t, server, "you, too")
	read(t, client, "you, too")
	unix.Setrlimit(unix.RLIMIT_NOFILE, &limit)
	client.CloseWrite()
	wantEOF(t, server)
	server.Close()
	if err := wait(t, done); err != nil {
		t.Error(err)
	}
}

// BenchmarkThroughput carries 256 MB from a server to a client, in turns by a bare program that
// only copies (io.Copy splices) and by the relay; ratio is the relay's speed by the program's.
func BenchmarkThroughput(b *testing.B) {
	const size = 256 << 20
	server := listen(b, "tcp4", "127.0.0.1:0")
	go func() {
		for {
			c, err := server.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				chunk := make([]byte, 256<<10)
				for range size / len(chunk) {
					if _, err := c.Write(chunk); err != nil {
						return
					}
				}
			}()
		}
	}()
	o := anyLocal()
	r := newRelay(b, o)
	target := Target{Addrs: []netip.AddrPort{portOf(server.Addr())}}
	bare := func(near *net.TCPConn) {
		up, err := net.Dial("tcp4", server.Addr().String())
		if err != nil {
			b.Error(err)
			return
		}
		half := func(dst, src *net.TCPConn) {
			io.Copy(dst, src)
			dst.CloseWrite()
		}
		done := make(chan struct{})
		go func() { half(up.(*net.TCPConn), near); close(done) }()
		half(near, up.(*net.TCPConn))
		<-done
		near.Close()
		up.Close()
	}
	ours := func(near *net.TCPConn) { r.ServeTCP(b.Context(), near, caller, target) }
	buf := make([]byte, 256<<10)
	once := func(carry func(*net.TCPConn)) time.Duration {
		client, near := tcpPair(b)
		start := time.Now()
		go carry(near)
		n := 0
		for {
			m, err := client.Read(buf)
			if n += m; err != nil {
				break
			}
		}
		if n != size {
			b.Fatalf("%d bytes came", n)
		}
		client.Close()
		return time.Since(start)
	}
	once(bare)
	once(ours)
	var byBare, byOurs time.Duration
	for i := 0; b.Loop(); i++ {
		if i%2 == 0 {
			byBare += once(bare)
			byOurs += once(ours)
		} else {
			byOurs += once(ours)
			byBare += once(bare)
		}
	}
	b.ReportMetric(size/byBare.Seconds()*float64(b.N)/1e6, "bare-MB/s")
	b.ReportMetric(size/byOurs.Seconds()*float64(b.N)/1e6, "relay-MB/s")
	b.ReportMetric(byBare.Seconds()/byOurs.Seconds(), "ratio")
}
