package linux

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"golang.zx2c4.com/wireguard/tun"
)

// lastingTUN is a tun.Device over a TUN interface that may be deleted and made anew:
// wireguard-go does not notice, and keeps its peers, their keys and where they are. It
// also never hears that the interface was set down, which would cost it the same: the
// plane brings it up again.
type lastingTUN struct {
	name   string
	batch  int
	events chan tun.Event
	closed chan struct{}

	forwards sync.WaitGroup

	mu    sync.Mutex
	cur   tun.Device
	next  chan struct{} // closed when cur is replaced
	mtu   int
	ended bool
}

func newLastingTUN(name string, mtu int) (*lastingTUN, error) {
	t := &lastingTUN{name: name, mtu: mtu, events: make(chan tun.Event, 5), closed: make(chan struct{}), next: make(chan struct{})}
	cur, err := t.create(mtu)
	if err != nil {
		return nil, err
	}
	t.cur, t.batch = cur, cur.BatchSize()
	t.forward(cur)
	return t, nil
}

func (t *lastingTUN) create(mtu int) (tun.Device, error) {
	d, err := tun.CreateTUN(t.name, mtu)
	if err != nil {
		return nil, fmt.Errorf("making TUN interface %s for wireguard-go: %w", t.name, err)
	}
	return d, nil
}

// renew makes the interface anew. What is left of the former one (it may have been
// renamed) goes away.
func (t *lastingTUN) renew(mtu int) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.ended {
		return os.ErrClosed
	}
	t.cur.Close()
	cur, err := t.create(mtu)
	if err != nil {
		return err
	}
	t.cur, t.mtu = cur, mtu
	close(t.next)
	t.next = make(chan struct{})
	t.forward(cur)
	return nil
}

// forward passes on the events of one interface.
func (t *lastingTUN) forward(cur tun.Device) {
	t.forwards.Go(func() {
		for e := range cur.Events() {
			if e &^= tun.EventDown; e == 0 {
				continue
			}
			select {
			case t.events <- e:
			case <-t.closed:
			}
		}
	})
}

func (t *lastingTUN) current() (tun.Device, <-chan struct{}) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.cur, t.next
}

// Read implements tun.Device. When the interface is gone it waits for the next.
func (t *lastingTUN) Read(bufs [][]byte, sizes []int, offset int) (int, error) {
	for {
		cur, next := t.current()
		n, err := cur.Read(bufs, sizes, offset)
		if err == nil || errors.Is(err, tun.ErrTooManySegments) {
			return n, err
		}
		select {
		case <-next:
		case <-time.After(100 * time.Millisecond): // it may have been one bad packet
		case <-t.closed:
			return 0, os.ErrClosed
		}
	}
}

// Write implements tun.Device. What is written to an interface that is gone or down is
// lost, as on any link.
func (t *lastingTUN) Write(bufs [][]byte, offset int) (int, error) {
	cur, _ := t.current()
	if n, err := cur.Write(bufs, offset); err == nil {
		return n, nil
	}
	return len(bufs), nil
}

// MTU implements tun.Device.
func (t *lastingTUN) MTU() (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if mtu, err := t.cur.MTU(); err == nil {
		t.mtu = mtu
	}
	return t.mtu, nil
}

// Close implements tun.Device.
func (t *lastingTUN) Close() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.ended {
		return nil
	}
	t.ended = true
	close(t.closed)
	err := t.cur.Close()
	go func() {
		t.forwards.Wait()
		close(t.events)
	}()
	return err
}

// File, Name, Events and BatchSize implement tun.Device.

func (t *lastingTUN) File() *os.File {
	cur, _ := t.current()
	return cur.File()
}

func (t *lastingTUN) Name() (string, error)    { return t.name, nil }
func (t *lastingTUN) Events() <-chan tun.Event { return t.events }
func (t *lastingTUN) BatchSize() int           { return t.batch }
