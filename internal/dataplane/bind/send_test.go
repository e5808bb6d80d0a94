package bind

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

var (
	peer4, peer6 = netip.MustParseAddrPort("192.0.2.1:51820"), netip.MustParseAddrPort("[2001:db8::1]:51820")
	ours4, ours6 = netip.MustParseAddr("198.51.100.200"), netip.MustParseAddr("2001:db8:51::200")
)

// host is a host with both families, below which stand two models of a kernel.
type host struct {
	bind   *Bind
	k4, k6 *kernel
}

func newHost() *host {
	h := &host{bind: New(netip.Addr{})}
	sock := func() (*kernel, *socket) {
		k := &kernel{local: []netip.Addr{ours4, ours6}, mtu: 1472, limit: 65507}
		return k, &socket{pc: k, gso: true, batches: sync.Pool{New: func() any { return newBatch() }}}
	}
	h.k4, h.bind.v4 = sock()
	h.k6, h.bind.v6 = sock()
	return h
}

// messages makes n of size bytes, no two alike.
func messages(n, size int) [][]byte {
	out := make([][]byte, n)
	for i := range out {
		out[i] = bytes.Repeat([]byte{byte(i)}, size)
	}
	return out
}

func want(e *Endpoint, from netip.Addr, bufs [][]byte) []datagram {
	var out []datagram
	for _, b := range bufs {
		out = append(out, datagram{e.dst, from, string(b)})
	}
	return out
}

func (h *host) send(t *testing.T, e *Endpoint, bufs [][]byte) {
	t.Helper()
	if err := h.bind.Send(bufs, e); err != nil {
		t.Fatal(err)
	}
}

// On a path that carries them, messages go in as few system calls as can be.
func TestBatch(t *testing.T) {
	h := newHost()
	e := NewEndpoint(peer4, ours4)
	bufs := append(messages(100, 1452), messages(1, 40)...)
	h.send(t, e, bufs)
	if !slices.Equal(h.k4.arrived, want(e, ours4, bufs)) {
		t.Error("what arrived is not what was sent")
	}
	if h.k4.calls != 1 || h.k4.joined != 3 {
		t.Errorf("%d system calls, %d joined messages; want 1 and 3 of 45 (64 KiB)", h.k4.calls, h.k4.joined)
	}
}

// A batch that is refused goes out all the same: one by one, in fragments.
func TestRefusedBatch(t *testing.T) {
	for _, c := range []struct {
		what string
		set  func(*kernel)
	}{
		{"a narrow path", func(k *kernel) { k.mtu = 1400 }},
		{"a narrow path before Linux 6.2", func(k *kernel) { k.mtu, k.old = 1400, true }},
		{"an interface that cannot segment", func(k *kernel) { k.noGSO = true }},
	} {
		h := newHost()
		c.set(h.k4)
		e, bufs := NewEndpoint(peer4, ours4), messages(128, 1452)
		h.send(t, e, bufs)
		if !slices.Equal(h.k4.arrived, want(e, ours4, bufs)) {
			t.Errorf("%s: %d of 128 messages arrived", c.what, len(h.k4.arrived))
		}
		if h.k4.mtu < 1452 && h.k4.pieces != 128 {
			t.Errorf("%s: %d messages went in fragments", c.what, h.k4.pieces)
		}
		if h.k4.calls > 3 {
			t.Errorf("%s: %d system calls", c.what, h.k4.calls)
		}
	}
}

// What cannot be done towards one peer is tried again after a while, and at once towards
// others.
func TestSegmentationReturns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHost()
		h.k4.mtu = 1400
		e, other := NewEndpoint(peer4, ours4), NewEndpoint(netip.MustParseAddrPort("192.0.2.7:1"), ours4)
		h.send(t, e, messages(8, 1452))
		before := h.k4.calls
		h.send(t, e, messages(8, 1452))
		if h.k4.calls != before+1 {
			t.Errorf("%d system calls for a batch that would be refused", h.k4.calls-before)
		}
		h.k4.mtu = 1500
		h.send(t, e, messages(8, 1452))
		if h.k4.joined != 0 {
			t.Error("it was tried again at once")
		}
		h.send(t, other, messages(8, 1452))
		if h.k4.joined != 1 {
			t.Error("another peer is not segmented for")
		}
		time.Sleep(plainTime + time.Millisecond)
		h.send(t, e, messages(8, 1452))
		if h.k4.joined != 2 || h.bind.v4.plain.some.Load() {
			t.Errorf("later: %d joined messages", h.k4.joined)
		}
	})
}

// A message that no path takes does not take the others with it.
func TestTooLarge(t *testing.T) {
	h := newHost()
	h.k4.limit = 2000
	e := NewEndpoint(peer4, ours4)
	bufs := slices.Concat(messages(3, 100), messages(1, 3000), messages(3, 100))
	if err := h.bind.Send(bufs, e); !errors.Is(err, syscall.EMSGSIZE) {
		t.Errorf("it says %v", err)
	}
	if !slices.Equal(h.k4.arrived, want(e, ours4, slices.Delete(slices.Clone(bufs), 3, 4))) {
		t.Errorf("%d messages arrived, want 6", len(h.k4.arrived))
	}
}

// An address that the host has lost does not silence a peer.
func TestLostAddress(t *testing.T) {
	h := newHost()
	h.k4.local = nil
	e, bufs := NewEndpoint(peer4, ours4), messages(10, 500)
	h.send(t, e, bufs)
	if !slices.Equal(h.k4.arrived, want(e, netip.Addr{}, bufs)) {
		t.Errorf("%d messages arrived", len(h.k4.arrived))
	}
	if e.SrcIP().IsValid() {
		t.Errorf("the source is still %v", e.SrcIP())
	}
}

// A silent peer is sent to from the address that it knows first, then as routing has it, in
// turns: either may be what is wrong.
func TestDoubtedSource(t *testing.T) {
	h := newHost()
	e := NewEndpoint(peer6, ours6)
	for range 4 {
		h.send(t, e, messages(1, 148))
		e.ClearSrc()
	}
	var from []netip.Addr
	for _, d := range h.k6.arrived {
		from = append(from, d.from)
	}
	if !slices.Equal(from, []netip.Addr{ours6, ours6, {}, ours6}) {
		t.Errorf("sources %v", from)
	}
}

// Whatever is sent in whatever order, each datagram arrives once, whole, in order, at its
// own address and from its own source, unless the kernel refuses it by itself.
func FuzzSend(f *testing.F) {
	for seed := range uint64(8) {
		f.Add(seed, uint8(20))
	}
	f.Fuzz(func(t *testing.T, seed uint64, rounds uint8) {
		rng := rand.New(rand.NewPCG(seed, 1))
		h := newHost()
		var ends []*Endpoint
		for i := range 6 {
			a, src, other := peer4, ours4, ours6
			if i%2 == 1 {
				a, src, other = peer6, ours6, ours4
			}
			a = netip.AddrPortFrom(a.Addr(), uint16(1+i))
			ends = append(ends, NewEndpoint(a, [...]netip.Addr{src, {}, other}[i/2]))
		}
		for range rounds {
			i := rng.IntN(len(ends))
			e, k := ends[i], h.k4
			if e.dst.Addr().Is6() {
				k = h.k6
			}
			k.mtu, k.limit = 1200+rng.IntN(400), 1600+rng.IntN(66000)
			k.noGSO, k.old, k.short = rng.IntN(4) == 0, rng.IntN(2) == 0, rng.IntN(4)
			k.err = nil
			if rng.IntN(8) == 0 {
				k.err = []error{syscall.ENETUNREACH, syscall.EPERM, syscall.ENOBUFS, syscall.EIO, syscall.EINVAL, syscall.EMSGSIZE}[rng.IntN(6)]
			}
			k.local = []netip.Addr{ours4, ours6}
			if rng.IntN(10) == 0 {
				k.local = nil
			}
			var bufs [][]byte
			for len(bufs) < 1+rng.IntN(130) {
				size := []int{32, 148, 1452, rng.IntN(1600), rng.IntN(9100), rng.IntN(66000)}[rng.IntN(6)]
				for range 1 + rng.IntN(min(70, 1+100_000/(size+1))) {
					b := bytes.Repeat([]byte{byte(rng.Uint32())}, size)
					bufs = append(bufs, b)
				}
			}
			source := e.source()
			if k.err == nil && k.local == nil {
				source = netip.Addr{}
			}
			h.k4.arrived, h.k6.arrived = nil, nil
			err := h.bind.Send(bufs, e)
			if k.err != nil {
				if !errors.Is(err, k.err) || len(k.arrived) > 0 {
					t.Fatalf("the kernel says %v to everything, Send %v; %d arrived", k.err, err, len(k.arrived))
				}
				e.gone.Store(false)
				continue
			}
			e.gone.Store(false)
			fit := slices.DeleteFunc(slices.Clone(bufs), func(b []byte) bool { return len(b) > k.limit })
			if (len(fit) < len(bufs)) != errors.Is(err, syscall.EMSGSIZE) || len(fit) == len(bufs) && err != nil {
				t.Fatalf("%d of %d messages are too large, and Send says %v", len(bufs)-len(fit), len(bufs), err)
			}
			if !slices.Equal(k.arrived, want(e, source, fit)) {
				t.Fatalf("%d datagrams arrived of %d, or others", len(k.arrived), len(fit))
			}
			if n := len(h.k4.arrived) + len(h.k6.arrived); n != len(k.arrived) {
				t.Fatal("the other family's socket was used")
			}
		}
	})
}
