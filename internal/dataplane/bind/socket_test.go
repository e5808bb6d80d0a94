package bind

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"golang.zx2c4.com/wireguard/conn"
)

// opened is a Bind on the loopback addresses with what it receives.
type opened struct {
	*Bind
	port uint16
	got  chan received
	done sync.WaitGroup
}

type received struct {
	data string
	from *Endpoint
}

func open(t testing.TB, a netip.Addr, o offload) *opened {
	t.Helper()
	b := &opened{Bind: New(a), got: make(chan received, 4096)}
	b.offload = o
	fns, port, err := b.Open(0)
	if err != nil {
		t.Fatal(err)
	}
	b.port = port
	for _, f := range fns {
		b.done.Go(func() {
			bufs, sizes, eps := make([][]byte, b.BatchSize()), make([]int, b.BatchSize()), make([]conn.Endpoint, b.BatchSize())
			for i := range bufs {
				bufs[i] = make([]byte, 65535)
			}
			for {
				n, err := f(bufs, sizes, eps)
				if errors.Is(err, net.ErrClosed) {
					return
				}
				if err != nil {
					t.Errorf("receiving: %v", err)
					return
				}
				for i := range n {
					b.got <- received{string(bufs[i][:sizes[i]]), eps[i].(*Endpoint)}
				}
			}
		})
	}
	t.Cleanup(func() { b.Close(); b.done.Wait() })
	return b
}

func (b *opened) take(t *testing.T) received {
	t.Helper()
	select {
	case r := <-b.got:
		return r
	case <-time.After(10 * time.Second):
		t.Fatal("nothing arrives")
		return received{}
	}
}

var offloads = []offload{{}, {send: true}, {receive: true}, {send: true, receive: true}}

// needIPv6 says whether the host has an IPv6 loopback address; where CI runs it must.
func needIPv6(t *testing.T) bool {
	c, err := net.ListenPacket("udp6", "[::1]:0")
	if err == nil {
		c.Close()
		return true
	}
	if os.Getenv("CI") != "" {
		t.Fatal(err)
	}
	return false
}

// The answer to each message of a batch leaves from the address that the batch came to.
func TestAnswerFromWhereItCame(t *testing.T) {
	addrs := []string{"127.0.0.1", "127.0.0.2", "127.7.7.7"}
	if needIPv6(t) {
		addrs = append(addrs, "::1")
	}
	for _, o := range offloads {
		for _, dialled := range addrs {
			t.Run(fmt.Sprintf("%+v %s", o, dialled), func(t *testing.T) {
				gateway, client := open(t, netip.Addr{}, o), open(t, netip.Addr{}, o)
				a := netip.MustParseAddr(dialled)
				const n = 100
				e := NewEndpoint(netip.AddrPortFrom(a, gateway.port), netip.Addr{})
				if err := client.Send(messages(n, 300), e); err != nil {
					t.Fatal(err)
				}
				for i := range n {
					r := gateway.take(t)
					if r.from.SrcIP() != a {
						t.Fatalf("message %d came to %v, not %v", i, r.from.SrcIP(), a)
					}
					if len(r.data) != 300 || r.data[0] != byte(i) {
						t.Fatalf("message %d has %d bytes, begins with %d", i, len(r.data), r.data[0])
					}
					if err := gateway.Send(messages(2, 200), r.from); err != nil {
						t.Fatal(err)
					}
					if l := gateway.Local(r.from.dst); l != a {
						t.Fatalf("the client knows us by %v, not %v", l, a)
					}
				}
				for i := range 2 * n {
					if r := client.take(t); r.from.DstIP() != a || len(r.data) != 200 {
						t.Fatalf("answer %d is of %d bytes from %v, not %v", i, len(r.data), r.from.DstIP(), a)
					}
				}
			})
		}
	}
}

// Both families at once, from many peers' goroutines: each datagram arrives where it was
// sent. (A pool of addresses, half written by the other family, lost some now and then.)
func TestFamiliesInTurns(t *testing.T) {
	if !needIPv6(t) {
		t.Skip("no IPv6 here")
	}
	const senders, rounds = 8, 200
	from, to := open(t, netip.Addr{}, offload{send: true, receive: true}), open(t, netip.Addr{}, offload{send: true, receive: true})
	var wg sync.WaitGroup
	slots := make(chan struct{}, 64) // so that no socket buffer overflows
	for g := range senders {
		wg.Go(func() {
			for i := range rounds {
				a := netip.MustParseAddr("127.0.0.1")
				if (i+g)%2 == 0 {
					a = netip.IPv6Loopback()
				}
				for range 1 + i%3 {
					slots <- struct{}{}
				}
				if err := from.Send(messages(1+i%3, 100+a.BitLen()), NewEndpoint(netip.AddrPortFrom(a, to.port), netip.Addr{})); err != nil {
					t.Error(err)
				}
			}
		})
	}
	total := 0
	for i := range rounds {
		total += senders * (1 + i%3)
	}
	for range total {
		r := to.take(t)
		<-slots
		if len(r.data) != 100+r.from.DstIP().BitLen() {
			t.Fatalf("a datagram of %d bytes came from %v", len(r.data), r.from.DstIP())
		}
	}
	wg.Wait()
}

// Closing ends what waits, the port is free then, and it opens again.
func TestCloseAndOpen(t *testing.T) {
	b := open(t, netip.Addr{}, offload{send: true, receive: true})
	if _, _, err := b.Open(b.port); !errors.Is(err, conn.ErrBindAlreadyOpen) {
		t.Errorf("a second Open: %v", err)
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	b.done.Wait()
	if err := b.Send(messages(1, 10), NewEndpoint(peer4, netip.Addr{})); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Send after Close: %v", err)
	}
	for range 3 {
		if _, port, err := b.Open(b.port); err != nil || port != b.port {
			t.Fatalf("opened again: port %d, %v", port, err)
		}
		if err := b.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if err := b.Close(); err != nil {
		t.Errorf("a second Close: %v", err)
	}
}

// A port that is taken is an error, and leaves nothing open.
func TestPortTaken(t *testing.T) {
	b := open(t, netip.Addr{}, offload{})
	other := New(netip.Addr{})
	if _, _, err := other.Open(b.port); !errors.Is(err, unix.EADDRINUSE) {
		t.Errorf("it says %v", err)
	}
	if other.v4 != nil || other.v6 != nil {
		t.Error("a socket is left open")
	}
}

// On one address there is one socket, and the other family cannot be sent to.
func TestOneAddress(t *testing.T) {
	b := open(t, netip.MustParseAddr("127.0.0.3"), offload{})
	if err := b.Send(messages(1, 10), NewEndpoint(peer6, netip.Addr{})); !errors.Is(err, unix.EAFNOSUPPORT) {
		t.Errorf("sending IPv6: %v", err)
	}
	old := b.SetAddr(netip.MustParseAddr("127.0.0.4"))
	if old != netip.MustParseAddr("127.0.0.3") {
		t.Errorf("the former address was %v", old)
	}
}

// The mark stays through a change of the port. It needs CAP_NET_ADMIN.
func TestMark(t *testing.T) {
	if os.Geteuid() != 0 {
		if os.Getenv("CI") != "" {
			t.Fatal("marking needs root")
		}
		t.Skip("marking needs root")
	}
	b := open(t, netip.Addr{}, offload{})
	if err := b.SetMark(7); err != nil {
		t.Fatal(err)
	}
	b.Close()
	b.done.Wait()
	if _, _, err := b.Open(b.port); err != nil {
		t.Fatal(err)
	}
	raw, err := b.v4.udp.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var mark int
	raw.Control(func(fd uintptr) { mark, err = unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_MARK) })
	if err != nil || mark != 7 {
		t.Errorf("the mark is %d, %v", mark, err)
	}
}

// A socket never forbids fragments: what is too large for a path goes in pieces.
func TestFragmentsAreAllowed(t *testing.T) {
	b := open(t, netip.Addr{}, offload{})
	for _, s := range []*socket{b.v4, b.v6} {
		if s == nil {
			continue
		}
		level, name := unix.IPPROTO_IP, unix.IP_MTU_DISCOVER
		if s == b.v6 {
			level, name = unix.IPPROTO_IPV6, unix.IPV6_MTU_DISCOVER
		}
		raw, err := s.udp.SyscallConn()
		if err != nil {
			t.Fatal(err)
		}
		var v int
		raw.Control(func(fd uintptr) { v, err = unix.GetsockoptInt(int(fd), level, name) })
		if err != nil || v != unix.IP_PMTUDISC_DONT {
			t.Errorf("MTU_DISCOVER is %d, %v", v, err)
		}
	}
}

func TestParseEndpoint(t *testing.T) {
	for in, want := range map[string]string{
		"192.0.2.1:1":              "192.0.2.1:1",
		"[2001:db8::1]:2":          "[2001:db8::1]:2",
		"[::ffff:192.0.2.1]:51820": "192.0.2.1:51820",
	} {
		e, err := (&Bind{}).ParseEndpoint(in)
		if err != nil || e.DstToString() != want || e.SrcToString() != "" {
			t.Errorf("%s: %v, %v", in, e, err)
		}
	}
	if _, err := (&Bind{}).ParseEndpoint("example.org:1"); err == nil {
		t.Error("a name was taken")
	}
}
