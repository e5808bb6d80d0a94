package linux

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
	"golang.zx2c4.com/wireguard/device"
	"golang.zx2c4.com/wireguard/ipc"

	"vpnd/internal/dataplane/bind"
)

// engine is wireguard-go inside this process, on a TUN device, with its UAPI socket
// served, so that wg(8) and wgctrl find it as they find the kernel's.
type engine struct {
	name string
	tun  *lastingTUN
	dev  *device.Device
	bind *bind.Bind
	log  *slog.Logger
	// before and set are called before and after somebody else changes the configuration.
	before, set func()

	mu     sync.Mutex
	uapi   net.Listener
	closed bool
}

func startEngine(name string, mtu int, log *slog.Logger, before, set func()) (*engine, error) {
	t, err := newLastingTUN(name, mtu)
	if err != nil {
		return nil, err
	}
	e := &engine{name: name, tun: t, bind: bind.New(netip.Addr{}), log: log, before: before, set: set}
	e.dev = device.NewDevice(t, e.bind, &device.Logger{
		Verbosef: device.DiscardLogf,
		Errorf:   func(f string, a ...any) { log.Warn("wireguard-go", "why", fmt.Sprintf(f, a...)) },
	})
	l, err := e.listen()
	if err != nil {
		e.dev.Close()
		return nil, err
	}
	go e.serve(l)
	return e, nil
}

// listen opens the UAPI socket.
func (e *engine) listen() (net.Listener, error) {
	l, err := openUAPI(e.name, ipc.UAPIOpen, ipc.UAPIListen)
	if err != nil {
		return nil, err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		l.Close()
		return nil, net.ErrClosed
	}
	e.uapi = l
	return l, nil
}

// openUAPI opens and serves the socket of a name. It tries again where the socket went while it
// worked: wg(8) removes one that refuses it, such as a killed process leaves, or a new one in
// the moment between bind and listen.
func openUAPI(name string, open func(string) (*os.File, error), serve func(string, *os.File) (net.Listener, error)) (net.Listener, error) {
	for tries := 1; ; tries++ {
		l, err := func() (net.Listener, error) {
			f, err := open(name)
			if err != nil {
				return nil, fmt.Errorf("opening WireGuard's socket /var/run/wireguard/%s.sock: %w", name, err)
			}
			defer f.Close()
			l, err := serve(name, f)
			if err != nil {
				return nil, fmt.Errorf("serving WireGuard's socket /var/run/wireguard/%s.sock: %w", name, err)
			}
			return l, nil
		}()
		if err == nil || tries == uapiTries || !errors.Is(err, fs.ErrNotExist) {
			return l, err
		}
	}
}

// uapiTries bounds how often openUAPI works against somebody who keeps removing its socket.
const uapiTries = 5

// serve answers on the UAPI socket, and makes it anew when somebody removes it.
func (e *engine) serve(l net.Listener) {
	for {
		c, err := l.Accept()
		if err == nil {
			go e.dev.IpcHandle(e.watch(c))
			continue
		}
		for {
			e.mu.Lock()
			if !e.closed {
				e.uapi.Close()
			}
			closed := e.closed
			e.mu.Unlock()
			if closed {
				return
			}
			time.Sleep(100 * time.Millisecond)
			if l, err = e.listen(); err == nil {
				break
			}
			if errors.Is(err, net.ErrClosed) {
				return
			}
			e.log.Warn("serving WireGuard's socket", "why", err)
			time.Sleep(time.Second)
		}
	}
}

// watch looks into what others than this process ask for.
func (e *engine) watch(c net.Conn) net.Conn {
	u, ok := c.(*net.UnixConn)
	if !ok {
		return c
	}
	raw, err := u.SyscallConn()
	if err != nil {
		return c
	}
	var cred *unix.Ucred
	if err2 := raw.Control(func(fd uintptr) {
		cred, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	}); err2 == nil && err == nil && int(cred.Pid) == os.Getpid() {
		return c
	}
	return &watchedConn{Conn: c, before: e.before, set: e.set}
}

// watchedConn notices a "set" operation, and tells when its answer was written: what it
// changed is in force then.
type watchedConn struct {
	net.Conn
	before, set func()
	// By the one goroutine that handles the connection:
	read bool // something was read before
	seen bool
	tail []byte // the last bytes read: a keyword may be split
}

func (c *watchedConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.tail = append(c.tail, b[:n]...)
	if bytes.Contains(c.tail, []byte("set=")) {
		c.seen = true
		if !c.read {
			c.before() // wireguard-go holds no lock yet, as it does further into an operation
		}
	}
	c.read = c.read || n > 0
	c.tail = append(c.tail[:0], c.tail[max(0, len(c.tail)-3):]...)
	return n, err
}

func (c *watchedConn) Write(b []byte) (int, error) {
	n, err := c.Conn.Write(b)
	if c.seen {
		c.set()
	}
	return n, err
}

func (c *watchedConn) Close() error {
	if c.seen {
		c.set()
	}
	return c.Conn.Close()
}

// dead says whether wireguard-go has given up.
func (e *engine) dead() bool {
	if e == nil {
		return false
	}
	select {
	case <-e.dev.Wait():
		return true
	default:
		return false
	}
}

func (e *engine) close() {
	e.mu.Lock()
	e.closed = true
	uapi := e.uapi
	e.mu.Unlock()
	if uapi != nil {
		uapi.Close()
	}
	e.dev.Close()
}
