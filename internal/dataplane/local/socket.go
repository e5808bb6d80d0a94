package local

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

func identify(path string) (fileID, error) {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return fileID{}, err
	}
	return fileID{uint64(st.Dev), st.Ino}, nil
}

// CheckSocket tells whether a unix socket may be called.
func (g *Guard) CheckSocket(path string) error {
	fd, err := g.open(path)
	if err == nil {
		unix.Close(fd)
	}
	return err
}

// Socket connects with a unix socket that may be called. What was judged is what is connected
// with, whatever becomes of the path in between.
func (g *Guard) Socket(ctx context.Context, path string) (net.Conn, error) {
	fd, err := g.open(path)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	var d net.Dialer
	c, err := d.DialContext(ctx, "unix", ofDescriptor(fd))
	switch {
	case errors.Is(err, unix.EACCES):
		return nil, fmt.Errorf("the socket %s is closed to vpnd, %s: give the user vpnd the group of the socket", path, describe(fd))
	case errors.Is(err, unix.ECONNREFUSED):
		return nil, fmt.Errorf("nobody answers at the socket %s: start the service again: %w", path, unix.ECONNREFUSED)
	case errors.Is(err, unix.EPROTOTYPE):
		return nil, fmt.Errorf("the socket %s carries no streams: publish one that does", path)
	case err != nil:
		return nil, fmt.Errorf("connecting with the socket %s: %w", path, errno(err))
	}
	return c, nil
}

func ofDescriptor(fd int) string { return "/proc/self/fd/" + strconv.Itoa(fd) }

// open takes hold of a socket that may be called, without connecting.
func (g *Guard) open(path string) (int, error) {
	fd, err := unix.Open(path, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		// Whether it may be is said before why it cannot.
		if err := judge(*g.allowed.Load(), g.never(), path, realPath(path), fileID{}); err != nil {
			return -1, err
		}
		return -1, missing(path, err)
	}
	if err := g.judgeOpen(path, fd); err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

func (g *Guard) judgeOpen(path string, fd int) error {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return fmt.Errorf("looking at %s: %w", path, err)
	}
	real, err := os.Readlink(ofDescriptor(fd))
	if err != nil {
		return fmt.Errorf("looking where %s leads: %w", path, errno(err))
	}
	if err := judge(*g.allowed.Load(), g.never(), path, real, fileID{uint64(st.Dev), st.Ino}); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFSOCK {
		return fmt.Errorf("%s is no socket: name the one that the service listens on", path)
	}
	return nil
}

func describe(fd int) string {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return "whose mode nobody knows"
	}
	return fmt.Sprintf("which runs as uid %d: it is uid %d's and group %d's with mode %#o", os.Geteuid(), st.Uid, st.Gid, st.Mode&0o777)
}

func errno(err error) error {
	var e unix.Errno
	if errors.As(err, &e) {
		return e
	}
	return err
}

// missing says why a socket that may be called cannot be.
func missing(path string, err error) error {
	dir := filepath.Dir(path)
	for {
		if _, serr := os.Stat(dir); serr == nil || dir == "/" {
			break
		}
		dir = filepath.Dir(dir)
	}
	const cure = "let the service make its socket below /run, or bind its folder into the unit (systemctl edit vpnd: BindPaths=%s)"
	info, _ := os.ReadFile("/proc/thread-self/mountinfo") // without it less is said
	mount, hides := hidingMount(info, dir)
	if !hides && mount == dir && dir != "/" && errors.Is(err, fs.ErrNotExist) {
		entries, derr := os.ReadDir(dir)
		hides = derr == nil && len(entries) == 0
	}
	switch {
	case hides:
		return fmt.Errorf("%s is hidden from vpnd: the sandbox of its unit has put something else over %s: "+cure+": %w", path, mount, filepath.Dir(path), err)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("%s is out of vpnd's reach, which runs as uid %d: a folder above it is closed, by its mode or by the sandbox of vpnd's unit (as /home, /root and /run/user are): "+cure+": %w", path, os.Geteuid(), filepath.Dir(path), err)
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("there is no %s: start the service that makes it: %w", path, err)
	}
	return fmt.Errorf("opening %s: %w", path, err)
}

// hidingMount is the mount point that dir lies below ("/" at last), and whether systemd has put
// it there so that something is not seen. info is a mountinfo (proc_pid_mountinfo(5)).
func hidingMount(info []byte, dir string) (mount string, hides bool) {
	mount = "/"
	for line := range strings.Lines(string(info)) {
		f := strings.Fields(line)
		if len(f) < 5 {
			continue
		}
		root, at := unescape(f[3]), unescape(f[4])
		if at != "/" && dir != at && !strings.HasPrefix(dir, at+"/") || len(at) < len(mount) {
			continue
		}
		mount = at // of several at one place, the last one is what is seen
		hides = strings.Contains(root, "/systemd/inaccessible/") || strings.Contains(root, "/systemd-private-")
	}
	return mount, hides
}

// unescape undoes mountinfo's octal escapes.
func unescape(s string) string {
	return strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace(s)
}
