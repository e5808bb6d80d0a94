package nft

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// Socket is the one netlink socket by which all of our changes go: an owned table
// belongs to its port id, and the watcher knows our own changes by it.
type Socket struct {
	fd   int
	Port uint32
	seq  uint32
}

func Open() (*Socket, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_NETFILTER)
	if err != nil {
		return nil, fmt.Errorf("open a netlink socket: %w", err)
	}
	s := &Socket{fd: fd, seq: 1}
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		s.Close()
		return nil, fmt.Errorf("bind a netlink socket: %w", err)
	}
	sa, err := unix.Getsockname(fd)
	if err != nil {
		s.Close()
		return nil, fmt.Errorf("name of a netlink socket: %w", err)
	}
	s.Port = sa.(*unix.SockaddrNetlink).Pid
	// A transaction is one datagram; that of a large state has megabytes.
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, 128<<20); err != nil {
		s.Close()
		return nil, fmt.Errorf("enlarge the netlink send buffer (CAP_NET_ADMIN is needed): %w", err)
	}
	_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 8<<20)
	_ = unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_CAP_ACK, 1)
	_ = unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_EXT_ACK, 0)
	return s, nil
}

func (s *Socket) Close() { _ = unix.Close(s.fd) }

// Error is a message that the kernel refused.
type Error struct {
	Index int // of the batch's ops; -1: the transaction as a whole
	What  string
	Errno unix.Errno
}

func (e *Error) Error() string { return fmt.Sprintf("nf_tables: %s: %v", e.What, e.Errno) }
func (e *Error) Unwrap() error { return e.Errno }

// Unchanged says that a Commit that failed has changed nothing, for a reason that lies not in
// what was sent: it may work the next time.
func Unchanged(err error) bool {
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return true
	}
	var refused *Error
	if !errors.As(err, &refused) {
		return false
	}
	switch refused.Errno {
	case unix.EINTR, unix.EAGAIN, unix.EBUSY, unix.ENOMEM, unix.ENOBUFS, unix.EPERM:
		return true
	}
	return false
}

// Commit sends b as one transaction. An element whose timeout runs out in this very moment
// does not fail it: a deletion of what is gone is left out, and an addition that meets what
// is just going (EBUSY) is tried again a moment later.
func (s *Socket) Commit(ctx context.Context, b *Batch) error {
	if b.Err != nil {
		return b.Err
	}
	for try := 0; !b.empty(); try++ {
		errs, err := s.Send(ctx, b)
		if err != nil {
			return err
		}
		if len(errs) == 0 {
			return nil
		}
		gone := make(map[int]bool)
		going := false
		for _, e := range errs {
			if e.Errno == unix.EBUSY && e.Index >= 0 && !b.Ops[e.Index].isDel && try < 50 {
				going = true
				continue
			}
			if e.Index < 0 || e.Errno != unix.ENOENT || !b.Ops[e.Index].isDel {
				return e
			}
			gone[e.Index] = true
		}
		if try > 100 {
			return errs[0]
		}
		kept := b.Ops[:0:0]
		for i, o := range b.Ops {
			if !gone[i] {
				kept = append(kept, o)
			}
		}
		b.Ops = kept
		if going {
			time.Sleep(time.Millisecond)
		}
	}
	return nil
}

func (s *Socket) Send(ctx context.Context, b *Batch) ([]*Error, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	first := s.seq
	last := first + uint32(len(b.Ops)) // begin has first, the ops follow
	s.seq = last + 2
	if err := unix.Sendto(s.fd, b.bytes(first, s.Port), 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		var errno unix.Errno
		if errors.As(err, &errno) {
			return nil, &Error{Index: -1, What: fmt.Sprintf("send a transaction of %d messages", len(b.Ops)), Errno: errno}
		}
		return nil, fmt.Errorf("send a transaction of %d messages to nf_tables: %w", len(b.Ops), err)
	}
	var errs []*Error
	deadline := time.Now().Add(time.Minute)
	buf := make([]byte, 64<<10)
	for {
		msgs, err := s.receive(buf, deadline)
		if err != nil {
			return nil, fmt.Errorf("answer of nf_tables: %w", err)
		}
		for _, m := range msgs {
			if m.Header.Type != netlink.Error || m.Header.Sequence < first || m.Header.Sequence > last {
				continue
			}
			errno := unix.Errno(-int32(binary.NativeEndian.Uint32(m.Data)))
			switch {
			case m.Header.Sequence == first && errno != 0:
				// Refused as a whole: no permission, no memory, or a commit that failed.
				return []*Error{{Index: -1, What: "transaction", Errno: errno}}, nil
			case errno != 0:
				i := int(m.Header.Sequence - first - 1)
				errs = append(errs, &Error{Index: i, What: b.Ops[i].what, Errno: errno})
			}
			if m.Header.Sequence == last {
				return errs, nil
			}
		}
	}
}

// receive waits for a datagram.
func (s *Socket) receive(buf []byte, deadline time.Time) ([]netlink.Message, error) {
	for {
		left := time.Until(deadline)
		if left <= 0 {
			return nil, os.ErrDeadlineExceeded
		}
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(s.fd), Events: unix.POLLIN}}, int(left.Milliseconds())+1)
		if errors.Is(err, unix.EINTR) || (err == nil && n == 0) {
			continue
		}
		if err != nil {
			return nil, err
		}
		n, _, err = unix.Recvfrom(s.fd, buf, 0)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return nil, err
		}
		return ParseMessages(buf[:n])
	}
}

func ParseMessages(b []byte) ([]netlink.Message, error) {
	var out []netlink.Message
	for len(b) >= 16 {
		n := int(binary.NativeEndian.Uint32(b))
		if n < 16 || n > len(b) {
			return out, fmt.Errorf("netlink message of %d bytes in %d", n, len(b))
		}
		out = append(out, netlink.Message{
			Header: netlink.Header{
				Length:   uint32(n),
				Type:     netlink.HeaderType(binary.NativeEndian.Uint16(b[4:])),
				Flags:    netlink.HeaderFlags(binary.NativeEndian.Uint16(b[6:])),
				Sequence: binary.NativeEndian.Uint32(b[8:]),
				PID:      binary.NativeEndian.Uint32(b[12:]),
			},
			Data: append([]byte(nil), b[16:n]...),
		})
		b = b[min(align(n), len(b)):]
	}
	return out, nil
}
