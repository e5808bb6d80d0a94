package tell

import (
	"errors"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"
)

// raw sends whole IP packets of one family.
type raw struct {
	family int
	fd     int
}

// openRaw opens a raw socket whose packets carry mark, and leave by iface unless that is "".
func openRaw(family int, iface string, mark uint32) (*raw, error) {
	fd, err := unix.Socket(family, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.IPPROTO_RAW)
	if err != nil {
		return nil, fmt.Errorf("opening a raw socket: %w", err)
	}
	err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_MARK, int(mark))
	if err == nil && iface != "" {
		err = unix.SetsockoptString(fd, unix.SOL_SOCKET, unix.SO_BINDTODEVICE, iface)
	}
	if err != nil {
		_ = unix.Close(fd)
		return nil, fmt.Errorf("preparing a raw socket: %w", err)
	}
	_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, 4<<20)
	return &raw{family, fd}, nil
}

func (r *raw) send(to netip.Addr, b []byte) error {
	if r.family == unix.AF_INET {
		return unix.Sendto(r.fd, b, 0, &unix.SockaddrInet4{Addr: to.As4()})
	}
	return unix.Sendto(r.fd, b, 0, &unix.SockaddrInet6{Addr: to.As16()})
}

func (r *raw) close() { _ = unix.Close(r.fd) }

// sockets are the raw sockets of one burst. They are not kept: the tunnel's interface may
// be made anew at any time.
type sockets struct {
	iface string
	mark  uint32
	open  map[[2]bool]*raw // by: IPv4, into the tunnel
}

func (s *sockets) send(to netip.Addr, inside bool, b []byte) error {
	k := [2]bool{to.Is4(), inside}
	r := s.open[k]
	if r == nil {
		family, iface := unix.AF_INET6, ""
		if to.Is4() {
			family = unix.AF_INET
		}
		if inside {
			iface = s.iface
		}
		var err error
		if r, err = openRaw(family, iface, s.mark); err != nil {
			return err
		}
		if s.open == nil {
			s.open = make(map[[2]bool]*raw)
		}
		s.open[k] = r
	}
	return r.send(to, b)
}

func (s *sockets) close() {
	for _, r := range s.open {
		r.close()
	}
	s.open = nil
}

var errNoRaw = errors.New("CAP_NET_RAW is missing; give it to vpnd (systemd: AmbientCapabilities)")

// permitted says whether raw sockets can be opened.
func permitted() error {
	r, err := openRaw(unix.AF_INET, "", 0)
	if errors.Is(err, unix.EPERM) {
		return errNoRaw
	}
	if err != nil {
		return err
	}
	r.close()
	return nil
}
