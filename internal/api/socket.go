package api

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"syscall"

	"vpnd/internal/owner"
)

// maxSocketPath is the kernel's limit of a unix socket's path (sun_path, less its NUL).
const maxSocketPath = 107

// ListenControl opens the socket for administrators, mode 0600. The folder is made if
// it is missing.
func ListenControl(path string) (net.Listener, error) { return listenUnix(path, -1, 0o600) }

// ListenWhoIs opens the socket for protected services: mode 0660 for the group gid, or
// 0600 with gid -1.
func ListenWhoIs(path string, gid int) (net.Listener, error) {
	if gid < 0 {
		return listenUnix(path, -1, 0o600)
	}
	return listenUnix(path, gid, 0o660)
}

func listenUnix(path string, gid int, mode os.FileMode) (net.Listener, error) {
	if len(path) > maxSocketPath {
		return nil, fmt.Errorf("the socket's path %s has %d bytes, the kernel takes %d: choose a shorter one with --control", path, len(path), maxSocketPath)
	}
	if err := owner.Self().Above(path, "the socket", 0o755); err != nil {
		return nil, fmt.Errorf("make the socket %s: %w", path, err)
	}
	if err := removeStale(path); err != nil {
		return nil, err
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, fmt.Errorf("open the socket %s: %w", path, err)
	}
	// Until the mode is set the umask holds, and for administrators the handshake's look
	// at the caller's uid.
	if err := os.Chmod(path, mode); err != nil {
		return nil, errors.Join(fmt.Errorf("protect the socket %s: %w", path, err), l.Close())
	}
	// A sandbox may forbid chown(2) even where it would change nothing.
	if st, err := os.Stat(path); gid >= 0 && (err != nil || st.Sys().(*syscall.Stat_t).Gid != uint32(gid)) {
		if err := os.Chown(path, -1, gid); err != nil {
			return nil, errors.Join(fmt.Errorf("give the socket %s to group %d: %w", path, gid, err), l.Close())
		}
	}
	return l, nil
}

// removeStale removes a socket that a killed daemon left, and only that: one of somebody
// else, one that somebody answers on, and any other file, stays.
func removeStale(path string) error {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("look at the socket %s: %w", path, err)
	}
	if info.Mode().Type() != fs.ModeSocket {
		return fmt.Errorf("%s is in the way: it is not a socket; move it, or choose another place with --control", path)
	}
	if err := owner.Self().Socket(path, "the socket"); err != nil {
		return err
	}
	c, err := net.Dial("unix", path)
	if err == nil {
		c.Close()
		return fmt.Errorf("another vpnd answers on %s: stop it, or choose another place with --control", path)
	}
	if !errors.Is(err, syscall.ECONNREFUSED) {
		return fmt.Errorf("look whether anybody answers on %s: %w", path, err)
	}
	if err := os.Remove(path); err != nil {
		return fmt.Errorf("remove the stale socket %s: %w", path, err)
	}
	return nil
}
