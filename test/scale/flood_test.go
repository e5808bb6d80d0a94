package scale

import (
	"fmt"
	"net/netip"
	"os"
	"runtime"
	"strconv"
	"strings"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// payload makes UDP packets over IPv4 64 bytes long.
const payload = 64 - 20 - 8

// inNamespace runs fn on a thread of its own in a network namespace; sockets made there
// stay there.
func inNamespace(name string, fn func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with this goroutine
		h, err := os.Open("/run/netns/" + name)
		if err == nil {
			err = unix.Setns(int(h.Fd()), unix.CLONE_NEWNET)
			_ = h.Close()
		}
		if err == nil {
			err = fn()
		}
		done <- err
	}()
	return <-done
}

// flood is a UDP socket that sends small packets as fast as it can.
type flood struct {
	fd   int
	msgs [64]mmsghdr
}

// mmsghdr is sendmmsg(2)'s.
type mmsghdr struct {
	hdr unix.Msghdr
	n   uint32
	_   [4]byte
}

// newFlood opens the socket in a namespace.
func newFlood(namespace string, from netip.Addr, to netip.AddrPort) (*flood, error) {
	f := &flood{fd: -1}
	err := inNamespace(namespace, func() (err error) {
		f.fd, err = unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err == nil {
			err = unix.Bind(f.fd, &unix.SockaddrInet4{Addr: from.As4()})
		}
		if err == nil {
			err = unix.Connect(f.fd, &unix.SockaddrInet4{Addr: to.Addr().As4(), Port: int(to.Port())})
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("a socket in %s: %w", namespace, err)
	}
	data := make([]byte, payload)
	iov := &unix.Iovec{Base: &data[0]}
	iov.SetLen(len(data))
	for i := range f.msgs {
		f.msgs[i].hdr.Iov = iov
		f.msgs[i].hdr.SetIovlen(1)
	}
	return f, nil
}

// run sends until the thread has used so much CPU time, and says how much it was. The
// kernel forwards a packet on the thread that sent it, so this is what sending and
// forwarding cost, whatever else the machine does. What it cannot take it is sent again.
func (f *flood) run(d time.Duration) (cpu time.Duration, err error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	begin := threadTime()
	for cpu < d {
		for range 8 {
			_, _, errno := unix.Syscall6(unix.SYS_SENDMMSG, uintptr(f.fd), uintptr(unsafe.Pointer(&f.msgs[0])), uintptr(len(f.msgs)), 0, 0, 0)
			// An ICMP error for an earlier packet is reported by the next call.
			if errno != 0 && errno != unix.ENOBUFS && errno != unix.EAGAIN && errno != unix.EINTR && errno != unix.EHOSTUNREACH && errno != unix.ECONNREFUSED {
				return cpu, fmt.Errorf("sendmmsg: %w", errno)
			}
		}
		cpu = threadTime() - begin
	}
	return cpu, nil
}

// threadTime is the CPU time that this thread has used.
func threadTime() time.Duration {
	var t unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &t)
	return time.Duration(t.Nano())
}

func (f *flood) close() { _ = unix.Close(f.fd) }

// received is how many packets an interface of a namespace has received.
func received(namespace, dev string) (n uint64, err error) {
	err = inNamespace(namespace, func() error {
		text, err := os.ReadFile("/proc/thread-self/net/dev")
		if err != nil {
			return err
		}
		for line := range strings.Lines(string(text)) {
			name, rest, _ := strings.Cut(strings.TrimSpace(line), ":")
			if f := strings.Fields(rest); name == dev && len(f) > 1 {
				n, err = strconv.ParseUint(f[1], 10, 64)
				return err
			}
		}
		return fmt.Errorf("no interface %s in %s", dev, namespace)
	})
	return n, err
}
