package owner

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// maxLinks is the kernel's limit of symbolic links on a path (path_resolution(7)).
const maxLinks = 40

// entry is what lies at a path, not what a link there leads to.
type entry struct {
	path     string
	uid, gid int
	mode     fs.FileMode
	fd       int // opened with O_PATH, or for reading; -1 if none is kept
}

// end says what a walk may end at.
type end struct {
	folder bool        // one that is missing is made, and those above it
	make   fs.FileMode // with this mode
}

// place is where a walk has ended: the folder and what lies in it.
type place struct {
	path   string  // without links
	above  []entry // from / down
	last   entry
	parent int // descriptor of the folder above last
	name   string
}

func (p *place) close() {
	for _, e := range append(p.above, p.last) {
		if e.fd >= 0 {
			unix.Close(e.fd)
		}
	}
}

// read opens what was found for reading.
func (p *place) read() (*os.File, error) {
	fd, err := unix.Openat(p.parent, p.name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: p.path, Err: err}
	}
	return os.NewFile(uintptr(fd), p.path), nil
}

// walk follows path from / and checks each folder above its end.
func (w Who) walk(path, what string, to end) (_ *place, err error) {
	if !strings.HasPrefix(path, "/") {
		wd, err := os.Getwd()
		if err != nil {
			return nil, fmt.Errorf("look for %s %s: %w", what, path, err)
		}
		path = wd + "/" + path
	}
	root, err := openEntry(unix.AT_FDCWD, "/", "/")
	if err != nil {
		return nil, fmt.Errorf("look for %s: %w", what, err)
	}
	p := &place{last: root, parent: -1}
	defer func() {
		if err != nil {
			p.close()
		}
	}()
	rest, links := split(path), 0
	for len(rest) > 0 {
		name := rest[0]
		rest = rest[1:]
		if name == ".." {
			if n := len(p.above); n > 0 {
				unix.Close(p.last.fd)
				p.last, p.above = p.above[n-1], p.above[:n-1]
			}
			continue
		}
		if !p.last.mode.IsDir() {
			return nil, fmt.Errorf("look for %s %s: %w", what, path, &fs.PathError{Op: "open", Path: p.last.path, Err: unix.ENOTDIR})
		}
		next, err := w.step(p.last, name, what, to)
		if err != nil {
			return nil, err
		}
		if next.mode.Type() == fs.ModeSymlink {
			target, err := readLink(p.last.fd, name, next.path)
			unix.Close(next.fd)
			if links++; err == nil && links > maxLinks {
				err = &fs.PathError{Op: "open", Path: path, Err: unix.ELOOP}
			}
			if err != nil {
				return nil, fmt.Errorf("look for %s: %w", what, err)
			}
			rest = append(split(target), rest...)
			if strings.HasPrefix(target, "/") {
				for len(p.above) > 0 {
					unix.Close(p.last.fd)
					n := len(p.above)
					p.last, p.above = p.above[n-1], p.above[:n-1]
				}
			}
			continue
		}
		p.above, p.last, p.name = append(p.above, p.last), next, name
	}
	p.path = p.last.path
	if n := len(p.above); n > 0 {
		p.parent = p.above[n-1].fd
	}
	return p, nil
}

// step opens name in the folder dir, making it if it is a missing part of a folder that is
// to be made, and checks that nobody else can have put it there.
func (w Who) step(dir entry, name, what string, to end) (next entry, err error) {
	path := strings.TrimSuffix(dir.path, "/") + "/" + name
	next, err = openEntry(dir.fd, name, path)
	if to.folder && errors.Is(err, fs.ErrNotExist) {
		if err = w.makeDir(dir, name, path, what, to.make); err == nil {
			next, err = openEntry(dir.fd, name, path)
		}
	}
	if err != nil {
		// A folder that others write to is the first thing to be told, also where what
		// is looked for is not there.
		if bad := w.checkAbove(dir, entry{uid: w.UID}, what); bad != nil {
			return entry{}, bad
		}
		return entry{}, fmt.Errorf("look for %s: %w", what, err)
	}
	if err := w.checkAbove(dir, next, what); err != nil {
		unix.Close(next.fd)
		return entry{}, err
	}
	return next, nil
}

// makeDir makes a folder with just this mode, whatever the umask is.
func (w Who) makeDir(dir entry, name, path, what string, mode fs.FileMode) error {
	if err := w.checkAbove(dir, entry{uid: w.UID}, what); err != nil {
		return err
	}
	err := unix.Mkdirat(dir.fd, name, 0o700)
	if errors.Is(err, unix.EEXIST) {
		return nil // was made meanwhile; it will be looked at
	}
	if err != nil {
		return &fs.PathError{Op: "mkdir", Path: path, Err: err}
	}
	fd, err := unix.Openat(dir.fd, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return &fs.PathError{Op: "open", Path: path, Err: err}
	}
	defer unix.Close(fd)
	if err := unix.Fchmod(fd, uint32(mode.Perm())); err != nil {
		return &fs.PathError{Op: "chmod", Path: path, Err: err}
	}
	return nil
}

func split(path string) (names []string) {
	for n := range strings.SplitSeq(path, "/") {
		if n != "" && n != "." {
			names = append(names, n)
		}
	}
	return names
}

func openEntry(dir int, name, path string) (entry, error) {
	fd, err := unix.Openat(dir, name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return entry{}, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	e, err := entryOf(fd, path)
	if err != nil {
		unix.Close(fd)
	}
	return e, err
}

func entryOf(fd int, path string) (entry, error) {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return entry{}, &fs.PathError{Op: "stat", Path: path, Err: err}
	}
	return entry{path: path, uid: int(st.Uid), gid: int(st.Gid), mode: fileMode(st.Mode), fd: fd}, nil
}

func entryAt(path string) (entry, error) {
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		return entry{}, &fs.PathError{Op: "stat", Path: path, Err: err}
	}
	return entry{path: path, uid: int(st.Uid), gid: int(st.Gid), mode: fileMode(st.Mode), fd: -1}, nil
}

func readLink(dir int, name, path string) (string, error) {
	b := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(dir, name, b)
	if err != nil {
		return "", &fs.PathError{Op: "readlink", Path: path, Err: err}
	}
	return string(b[:n]), nil
}

// acl says whether an access list (acl(5)) may give more people rights than the mode's
// group, whose bits are then the list's mask.
func (e entry) acl() bool {
	_, err := unix.Getxattr(fmt.Sprintf("/proc/self/fd/%d", e.fd), "system.posix_acl_access", nil)
	return !errors.Is(err, unix.ENODATA) && !errors.Is(err, unix.EOPNOTSUPP)
}

// fileMode translates a mode of stat(2) as far as it matters here.
func fileMode(mode uint32) fs.FileMode {
	m := fs.FileMode(mode & 0o777)
	if mode&unix.S_ISVTX != 0 {
		m |= fs.ModeSticky
	}
	switch mode & unix.S_IFMT {
	case unix.S_IFREG:
	case unix.S_IFDIR:
		m |= fs.ModeDir
	case unix.S_IFLNK:
		m |= fs.ModeSymlink
	case unix.S_IFSOCK:
		m |= fs.ModeSocket
	default:
		m |= fs.ModeIrregular
	}
	return m
}

// unixMode is the mode as chmod(1) writes it.
func unixMode(m fs.FileMode) uint32 {
	n := uint32(m.Perm())
	if m&fs.ModeSticky != 0 {
		n |= unix.S_ISVTX
	}
	return n
}
