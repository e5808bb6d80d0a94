// Package owner decides whether what a path leads to can be relied on: who owns it, who may
// change it, and who could put something else in its place.
//
// It walks from / along the components, symbolic links among them, each opened below the one
// before it, so that what was looked at is what is used. A process relies on root and on its
// own user, and on nobody else: a file of theirs, reached through folders that only they
// write to. A folder that everybody writes to is on the way only if it is sticky, as /tmp
// is, and what lies next on the way is theirs: others cannot rename that.
//
// A folder above that a group may write to counts as open to others, unless the group is root's or
// the user's own and nobody else is in it (Debian's homes with a umask of 002).
package owner

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// Who is a user whose files may be relied on beside root's.
type Who struct {
	UID, GID int
	passwd   string // who is in a group beside its own user: passwd(5), group(5)
	group    string
}

// Self is who runs this process.
func Self() Who { return Who{os.Geteuid(), os.Getegid(), "/etc/passwd", "/etc/group"} }

// Access is what others may do with a file.
type Access struct {
	Read  bool   // everybody may read it
	Group string // the members of this group may read it
}

// Read returns what is in the regular file at path, at most limit bytes of it. what is its
// name in a refusal, as "the sealing key". A file in $CREDENTIALS_DIRECTORY is as systemd
// made it (systemd.exec(5)), for this service alone.
func (w Who) Read(path, what string, may Access, limit int64) ([]byte, error) {
	f, err := w.open(path, what, may)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, fmt.Errorf("read %s %s: %w", what, path, err)
	}
	if int64(len(b)) > limit {
		return nil, fmt.Errorf("%s %s has more than %d bytes", what, path, limit)
	}
	return b, nil
}

func (w Who) open(path, what string, may Access) (*os.File, error) {
	if IsCredential(path) {
		f, err := os.Open(path)
		if err != nil {
			return nil, fmt.Errorf("read %s, a credential of this service: %w", what, err)
		}
		return f, nil
	}
	p, err := w.walk(path, what, end{})
	if err != nil {
		return nil, err
	}
	defer p.close()
	f, err := p.read()
	if err != nil {
		return nil, err
	}
	e, err := entryOf(int(f.Fd()), p.path)
	if err == nil {
		err = w.checkFile(e, what, may)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// IsCredential says whether path lies in $CREDENTIALS_DIRECTORY.
func IsCredential(path string) bool {
	dir := os.Getenv("CREDENTIALS_DIRECTORY")
	return filepath.IsAbs(dir) && filepath.Dir(filepath.Clean(path)) == filepath.Clean(dir)
}

// checkFile looks at a file that has been opened. Nobody else writes to it; who else reads
// it, may says.
func (w Who) checkFile(e entry, what string, may Access) error {
	if e.mode.Type() != 0 {
		return fmt.Errorf("%s %s is not a regular file", what, e.path)
	}
	if err := w.checkOwner(e, what); err != nil {
		return err
	}
	extra := e.mode.Perm() & 0o077
	if may.Read {
		extra &^= 0o055
	} else if may.Group != "" && e.gid == lookupGroup(may.Group) && !e.acl() {
		extra &^= 0o040
	}
	switch {
	case extra == 0:
		return nil
	case may.Read:
		return refuse(e, what, "others than its owner have rights to change it", "chmod go=r")
	case extra&^0o044 == 0:
		return refuse(e, what, "it can be read by others than its owner", "chmod 600")
	}
	return refuse(e, what, "others than its owner have rights to it", "chmod 600")
}

// Folder makes the folder at path with this mode if it is missing, and those above it, and
// refuses one that others own or write to.
func (w Who) Folder(path, what string, mode fs.FileMode) error {
	p, err := w.walk(path, what, end{folder: true, make: mode})
	if err != nil {
		return err
	}
	defer p.close()
	return w.checkFolder(p.last, what)
}

// Above makes the folder in which a file is to be made, and those above it, and refuses one
// in which others could put something else in the file's place.
func (w Who) Above(path, what string, mode fs.FileMode) error {
	p, err := w.walk(filepath.Dir(path), what, end{folder: true, make: mode})
	if err != nil {
		return err
	}
	defer p.close()
	return w.checkAbove(p.last, entry{uid: w.UID}, what)
}

// Socket refuses what lies at path unless it is a socket of root's or w's. Its mode is for
// those who connect to it.
func (w Who) Socket(path, what string) error {
	p, err := w.walk(path, what, end{})
	if err != nil {
		return err
	}
	defer p.close()
	if p.last.mode.Type() != fs.ModeSocket {
		return fmt.Errorf("%s %s is not a socket", what, path)
	}
	return w.checkOwner(p.last, what)
}

// CloseTree sees that each regular file below dir, a folder of w's own, is for its owner
// alone, and refuses what belongs to others: a link, too, could lead elsewhere.
func (w Who) CloseTree(dir, what string) error {
	return filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			if path != dir && errors.Is(err, fs.ErrNotExist) {
				return nil // was removed meanwhile
			}
			return err
		}
		e, err := entryAt(path)
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		inside := "what is in " + what + ","
		if err := w.checkOwner(e, inside); err != nil {
			return err
		}
		if !e.mode.IsRegular() || e.mode.Perm()&0o077 == 0 {
			return nil
		}
		if err := os.Chmod(path, e.mode.Perm()&0o700); err != nil { // root's, and this is not root
			return refuse(e, inside, "it can be read by others than its owner", "chmod 600")
		}
		return nil
	})
}

func (w Who) checkOwner(e entry, what string) error {
	if e.uid == 0 || e.uid == w.UID {
		return nil
	}
	fix, names := "chown root", "root"
	if w.UID != 0 {
		fix, names = "chown "+strconv.Itoa(w.UID), "root or to "+userName(w.UID)
	}
	if e.mode.Type() == fs.ModeSymlink {
		fix = strings.Replace(fix, "chown", "chown -h", 1)
	}
	return refuse(e, what, "it must belong to "+names, fix)
}

// checkAbove looks at a folder on the way; next is what lies in it on the way.
func (w Who) checkAbove(e, next entry, what string) error {
	above := "the folder above " + what + ","
	if err := w.checkOwner(e, above); err != nil {
		return err
	}
	open, fix := w.openTo(e)
	if open == "" {
		return nil
	}
	if e.mode&fs.ModeSticky != 0 {
		return w.checkOwner(next, "what lies on the way to "+what+",")
	}
	return refuse(e, above, open, fix)
}

// checkFolder looks at a folder that is relied on itself.
func (w Who) checkFolder(e entry, what string) error {
	if !e.mode.IsDir() {
		return fmt.Errorf("%s %s is not a folder", what, e.path)
	}
	if err := w.checkOwner(e, what); err != nil {
		return err
	}
	if e.mode.Perm()&0o022 != 0 {
		return refuse(e, what, "others may write to it", "chmod go-w")
	}
	return nil
}

// openTo says who else may write to a folder, and how to end that.
func (w Who) openTo(e entry) (open, fix string) {
	group := e.mode&0o020 != 0 && !(w.private(e.gid) && !e.acl())
	switch {
	case e.mode&0o002 != 0 && e.mode&0o020 != 0:
		return "others may write to it", "chmod go-w"
	case e.mode&0o002 != 0:
		return "others may write to it", "chmod o-w"
	case group:
		return "others of the group " + groupName(e.gid) + " may write to it", "chmod g-w"
	}
	return "", ""
}

// private says whether nobody but root or w is in the group, by the files. One that only a
// directory service knows is taken for a user's own if it has the user's number.
func (w Who) private(gid int) bool {
	var own string
	switch gid {
	case 0:
		own = "root"
	case w.GID:
		own = lookupID(w.passwd, w.UID)
	default:
		return false
	}
	groups, err := table(w.group)
	if err != nil {
		return false
	}
	known := gid == 0 || gid == w.UID
	for _, f := range groups {
		if len(f) < 4 || f[2] != strconv.Itoa(gid) {
			continue
		}
		known = true
		for m := range strings.SplitSeq(f[3], ",") {
			if m != "" && m != own && m != "root" {
				return false
			}
		}
	}
	users, err := table(w.passwd)
	for _, f := range users {
		if len(f) >= 4 && f[3] == strconv.Itoa(gid) && f[0] != own && gid != 0 {
			return false
		}
	}
	return known && err == nil
}

func refuse(e entry, what, why, fix string) error {
	return fmt.Errorf("%s %s (owner %s, group %s, mode %04o) cannot be relied on: %s: run %s %s",
		what, e.path, userName(e.uid), groupName(e.gid), unixMode(e.mode), why, fix, quote(e.path))
}

// quote makes a path one word of a shell.
func quote(path string) string {
	if strings.Trim(path, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789/._+-:@%=,") == "" {
		return path
	}
	return "'" + strings.ReplaceAll(path, "'", `'\''`) + "'"
}
