package relay

import (
	"errors"
	"io"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

const (
	// pipeSize is the most that one splice carries, in bytes.
	pipeSize = 1 << 19
	// keptPipes is how many idle pipes are kept for the next who needs one.
	keptPipes = 64
)

// pipes carries streams inside of the kernel, through pipes. io.Copy does the same, but each of
// its two directions has a pipe as long as it runs: six descriptors for a connection, most of
// which wait. Here a direction has a pipe only while bytes are under way.
type pipes struct {
	mu     sync.Mutex
	free   []*pipe
	closed bool
}

type pipe struct{ r, w int }

func (p *pipe) close() {
	unix.Close(p.r)
	unix.Close(p.w)
}

func (ps *pipes) get() (*pipe, error) {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	if n := len(ps.free); n > 0 {
		p := ps.free[n-1]
		ps.free = ps.free[:n-1]
		return p, nil
	}
	var fds [2]int
	if err := unix.Pipe2(fds[:], unix.O_CLOEXEC|unix.O_NONBLOCK); err != nil {
		return nil, err
	}
	// The kernel bounds what one user may have in pipes; a smaller one is good enough.
	unix.FcntlInt(uintptr(fds[0]), unix.F_SETPIPE_SZ, pipeSize)
	return &pipe{r: fds[0], w: fds[1]}, nil
}

// put takes back an empty pipe.
func (ps *pipes) put(p *pipe) {
	if p == nil {
		return
	}
	ps.mu.Lock()
	defer ps.mu.Unlock()
	if ps.closed || len(ps.free) >= keptPipes {
		p.close()
		return
	}
	ps.free = append(ps.free, p)
}

func (ps *pipes) close() {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	ps.closed = true
	for _, p := range ps.free {
		p.close()
	}
	ps.free = nil
}

// half copies src to dst and passes on its end.
func (ps *pipes) half(dst, src Stream) error {
	done := false
	if d, ok := rawOf(dst); ok {
		if s, ok := rawOf(src); ok {
			var err error
			if done, err = ps.splice(d, s); err != nil {
				return err
			}
		}
	}
	if !done {
		// Hide ReaderFrom and WriterTo: their fallbacks allocate.
		if _, err := io.CopyBuffer(struct{ io.Writer }{dst}, struct{ io.Reader }{src}, make([]byte, 32<<10)); err != nil {
			return err
		}
	}
	return dst.CloseWrite()
}

func rawOf(c Stream) (syscall.RawConn, bool) {
	s, ok := c.(syscall.Conn)
	if !ok {
		return nil, false
	}
	raw, err := s.SyscallConn()
	return raw, err == nil
}

// splice copies until src ends. false means that the rest must be copied in another way: the
// kernel cannot splice these two, or there are no descriptors for a pipe.
func (ps *pipes) splice(dst, src syscall.RawConn) (bool, error) {
	var p *pipe
	for {
		var n int
		var errno error
		err := src.Read(func(fd uintptr) bool {
			if p == nil {
				if p, errno = ps.get(); errno != nil {
					return true
				}
			}
			n, errno = move(int(fd), p.w, pipeSize)
			if errno == unix.EAGAIN { // nothing there: the pipe is empty
				ps.put(p)
				p = nil
				return false
			}
			return true
		})
		switch {
		case err != nil:
			ps.put(p)
			return false, err
		case p == nil || errno == unix.EINVAL:
			ps.put(p)
			return false, nil
		case errno != nil:
			ps.put(p)
			return false, errno
		case n == 0:
			ps.put(p)
			return true, nil
		}
		for n > 0 {
			var m int
			err := dst.Write(func(fd uintptr) bool {
				m, errno = move(p.r, int(fd), n)
				return errno != unix.EAGAIN
			})
			if err = errors.Join(err, errno); err == nil && m == 0 {
				err = io.ErrUnexpectedEOF
			}
			if err != nil {
				p.close() // with what it still holds
				return false, err
			}
			n -= m
		}
	}
}

// move splices at most n bytes without waiting.
func move(from, to, n int) (int, error) {
	for {
		m, err := unix.Splice(from, nil, to, nil, n, unix.SPLICE_F_NONBLOCK|unix.SPLICE_F_MOVE)
		if err != unix.EINTR {
			return int(m), err
		}
	}
}
