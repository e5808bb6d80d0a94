package relay

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// client is the client's end of UDP flows in tests.
type client struct {
	got         chan string
	unreachable atomic.Int32
}

func newClient() *client { return &client{got: make(chan string, 100)} }

func (c *client) Write(b []byte) (int, error) {
	c.got <- string(b)
	return len(b), nil
}

func (c *client) Unreachable() { c.unreachable.Add(1) }

func (c *client) want(t *testing.T, s string) {
	t.Helper()
	select {
	case got := <-c.got:
		if got != s {
			t.Fatalf("the client got %q, want %q", got, s)
		}
	case <-time.After(5 * time.Second):
		t.Fatalf("the client got nothing, want %q", s)
	}
}

// echo answers datagrams, and says from where they came.
func echo(t *testing.T) netip.AddrPort {
	t.Helper()
	c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	go func() {
		b := make([]byte, 1<<16)
		for {
			n, from, err := c.ReadFromUDPAddrPort(b)
			if err != nil {
				return
			}
			if n > 100 {
				c.WriteToUDPAddrPort(b[:n], from)
				continue
			}
			c.WriteToUDPAddrPort(fmt.Appendf(nil, "%s from %v", b[:n], from.Addr()), from)
		}
	}()
	return portOf(c.LocalAddr())
}

func TestDatagrams(t *testing.T) {
	r := newRelay(t, anyLocal())
	target := Target{Addrs: []netip.AddrPort{echo(t)}}
	cl, opened := newClient(), 0
	open := func() (Target, Peer, error) { opened++; return target, cl, nil }
	send := func(c Caller, s string) {
		t.Helper()
		if err := r.Datagram(c, []byte(s), open); err != nil {
			t.Fatal(err)
		}
	}
	send(caller, "one")
	cl.want(t, "one from 127.77.0.2")
	send(caller, "two")
	cl.want(t, "two from 127.77.0.2")
	big := strings.Repeat("x", 65507)
	send(caller, big)
	cl.want(t, big)
	other := caller
	other.Service = netip.MustParseAddrPort("10.77.128.6:53") // the same port of the client
	send(other, "")
	cl.want(t, " from 127.77.0.2")
	if opened != 2 || r.Len() != 2 {
		t.Errorf("%d opened, %d flows", opened, r.Len())
	}
	if n := r.CutClients(caller.Client.Addr()); n != 2 || r.Len() != 0 || len(r.sessions) != 0 {
		t.Errorf("%d cut, %d flows", n, r.Len())
	}
	denied := errors.New("not permitted")
	if err := r.Datagram(caller, []byte("x"), func() (Target, Peer, error) { return Target{}, nil, denied }); !errors.Is(err, denied) || r.Len() != 0 {
		t.Errorf("%v, %d flows", err, r.Len())
	}
	send(caller, "again")
	cl.want(t, "again from 127.77.0.2")
}

// That nobody listens is told, and when somebody does the next datagram arrives.
func TestUnreachable(t *testing.T) {
	r := newRelay(t, anyLocal())
	c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	at := portOf(c.LocalAddr())
	c.Close()
	cl := newClient()
	open := func() (Target, Peer, error) { return Target{Addrs: []netip.AddrPort{at}}, cl, nil }
	if err := r.Datagram(caller, []byte("x"), open); err != nil {
		t.Fatal(err)
	}
	eventually(t, "nobody tells the client", func() bool { return cl.unreachable.Load() == 1 })
	c, err = net.ListenUDP("udp4", net.UDPAddrFromAddrPort(at))
	if err != nil {
		t.Skip("the port is somebody else's by now")
	}
	defer c.Close()
	if err := r.Datagram(caller, []byte("y"), open); err != nil {
		t.Fatal(err)
	}
	read(t, c, "y")
}

func TestDatagramLimits(t *testing.T) {
	o := anyLocal()
	o.Flows, o.PerDevice = 3, 2
	r := newRelay(t, o)
	to := echo(t)
	from := func(device string, port uint16) error {
		c := caller
		c.Tunnel = netip.MustParseAddr(device)
		c.Client = netip.AddrPortFrom(c.Tunnel, port)
		return r.Datagram(c, []byte("x"), func() (Target, Peer, error) { return Target{Addrs: []netip.AddrPort{to}}, newClient(), nil })
	}
	for i, want := range []error{from("10.77.0.2", 1), from("10.77.0.2", 2), from("10.77.0.2", 1), from("10.77.0.3", 1)} {
		if want != nil {
			t.Errorf("%d: %v", i, want)
		}
	}
	for i, err := range []error{from("10.77.0.2", 3), from("10.77.0.3", 2)} {
		if !errors.Is(err, ErrTooMany) {
			t.Errorf("%d: %v, want too many", i, err)
		}
	}
	r.Close()
	if err := from("10.77.0.2", 1); !errors.Is(err, net.ErrClosed) {
		t.Errorf("closed: %v", err)
	}
}

// Flows end when conntrack would end them.
func TestIdle(t *testing.T) {
	ms := func(n int) time.Duration { return time.Duration(n) * time.Millisecond }
	for name, test := range map[string]struct {
		out, back []time.Duration // when packets pass
		want      time.Duration   // when the flow is gone
	}{
		"one packet":                    {out: []time.Duration{0}, want: 30 * time.Second},
		"unanswered":                    {out: []time.Duration{0, ms(5000), ms(25000)}, want: 55 * time.Second},
		"a question and its answer":     {out: []time.Duration{0}, back: []time.Duration{ms(100)}, want: ms(30100)},
		"two questions in two seconds":  {out: []time.Duration{0, ms(1500)}, back: []time.Duration{ms(100), ms(1600)}, want: ms(31600)},
		"a stream":                      {out: []time.Duration{0, ms(3000)}, back: []time.Duration{ms(100)}, want: ms(123000)},
		"a stream by what comes back":   {out: []time.Duration{0}, back: []time.Duration{ms(2500)}, want: ms(122500)},
		"a stream with a packet late":   {out: []time.Duration{0, ms(3000), ms(119000)}, back: []time.Duration{ms(100)}, want: ms(239000)},
		"answered late, no packet then": {out: []time.Duration{0}, back: []time.Duration{ms(29000)}, want: ms(149000)},
	} {
		synctest.Test(t, func(t *testing.T) {
			host, service := net.Pipe()
			r := New(Options{dial: func(context.Context, string, netip.Addr, netip.AddrPort) (net.Conn, error) { return host, nil }})
			go func() {
				b := make([]byte, 100)
				for {
					if _, err := service.Read(b); err != nil {
						return
					}
				}
			}()
			start := time.Now()
			var wg sync.WaitGroup
			open := func() (Target, Peer, error) {
				return Target{Addrs: []netip.AddrPort{netip.MustParseAddrPort("192.0.2.9:53")}}, newClient(), nil
			}
			for _, at := range test.out {
				wg.Go(func() {
					time.Sleep(at)
					if err := r.Datagram(caller, []byte("x"), open); err != nil {
						t.Errorf("%s: %v", name, err)
					}
				})
			}
			for _, at := range test.back {
				wg.Go(func() {
					time.Sleep(at)
					service.Write([]byte("y"))
				})
			}
			wg.Wait()
			time.Sleep(test.want - time.Since(start) - time.Millisecond)
			synctest.Wait()
			if r.Len() != 1 {
				t.Errorf("%s: gone before %v", name, test.want)
			}
			time.Sleep(time.Millisecond)
			synctest.Wait()
			if r.Len() != 0 || len(r.sessions) != 0 {
				t.Errorf("%s: still there after %v", name, test.want)
			}
			service.Close()
		})
	}
}

// Datagrams of one flow that come at once begin one flow.
func TestOneSession(t *testing.T) {
	r := newRelay(t, anyLocal())
	to := echo(t)
	var wg sync.WaitGroup
	cl := newClient()
	for range 50 {
		wg.Go(func() {
			if err := r.Datagram(caller, []byte("x"), func() (Target, Peer, error) { return Target{Addrs: []netip.AddrPort{to}}, cl, nil }); err != nil && !errors.Is(err, ErrCut) {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if r.Len() != 1 || len(r.sessions) != 1 {
		t.Errorf("%d flows, %d sessions", r.Len(), len(r.sessions))
	}
}
