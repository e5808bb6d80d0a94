package owner

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// Users and groups of the tests; none of them need exist.
const (
	daemon   = 20001 // who runs vpnd, in a group of its own
	stranger = 20002
	crowd    = 20003 // a group of several people
)

func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() == 0 {
		return
	}
	if os.Getenv("CI") != "" {
		t.Fatal("this test gives files away: it needs root")
	}
	t.Skip("this test gives files away: it needs root")
}

// runner is a Who of uid, whose group and users are those of files of the test's.
func runner(t *testing.T, uid int) Who {
	t.Helper()
	dir := t.TempDir()
	w := Who{uid, uid, filepath.Join(dir, "passwd"), filepath.Join(dir, "group")}
	write(t, w.passwd, fmt.Sprintf("root:x:0:0::/root:/bin/sh\ndaemon:x:%[1]d:%[1]d::/:/bin/false\neve:x:%[2]d:%[2]d::/:/bin/sh\n", daemon, stranger))
	write(t, w.group, fmt.Sprintf("root:x:0:\ndaemon:x:%d:\ncrowd:x:%d:daemon,eve\n", daemon, crowd))
	return w
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// tree makes what a line each says: "PATH UID GID MODE", a folder if PATH ends in '/', a
// link with "PATH -> TARGET UID". It returns the folder that all of it is in.
func tree(t *testing.T, what string) string {
	t.Helper()
	root := t.TempDir() // 0755 of root's below a sticky /tmp
	for line := range strings.SplitSeq(what, ";") {
		f := strings.Fields(line)
		path := filepath.Join(root, f[0])
		if f[1] == "->" {
			var uid int
			fmt.Sscan(f[3], &uid)
			if err := os.Symlink(strings.ReplaceAll(f[2], "ROOT", root), path); err != nil {
				t.Fatal(err)
			}
			if err := os.Lchown(path, uid, uid); err != nil {
				t.Fatal(err)
			}
			continue
		}
		var uid, gid int
		var mode uint32
		fmt.Sscanf(strings.Join(f[1:], " "), "%d %d %o", &uid, &gid, &mode)
		if strings.HasSuffix(f[0], "/") {
			if err := os.Mkdir(path, 0o700); err != nil {
				t.Fatal(err)
			}
		} else {
			write(t, path, "x")
		}
		if err := os.Chown(path, uid, gid); err != nil {
			t.Fatal(err)
		}
		if err := unix.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

func TestRead(t *testing.T) {
	needRoot(t)
	for _, c := range []struct {
		name string
		uid  int
		tree string
		path string // "key" if empty
		may  Access
		want string // of a refusal; empty: it is read
	}{
		{name: "root's", tree: "key 0 0 600"},
		{name: "root's, for a daemon", uid: daemon, tree: "key 0 0 600"},
		{name: "the daemon's own", uid: daemon, tree: "key 20001 20001 400"},
		{name: "a stranger's", tree: "key 20002 0 600", want: "(owner uid 20002, group root, mode 0600) cannot be relied on: it must belong to root: run chown root ROOT/key"},
		{name: "the daemon's, for root", tree: "key 20001 20001 600", want: "chown root"},
		{name: "a stranger's, for a daemon", uid: daemon, tree: "key 20002 20002 600", want: "chown 20001"},
		{name: "for its group", tree: "key 0 20003 640", want: "chmod 600 ROOT/key"},
		{name: "for root's group", tree: "key 0 0 640", want: "chmod 600"},
		{name: "for all", tree: "key 0 0 604", want: "it can be read by others than its owner"},
		{name: "for all to write", tree: "key 0 0 602", want: "mode 0602"},
		{name: "no file", tree: "key/ 0 0 700", want: "not a regular file"},

		{name: "folder of the daemon", uid: daemon, tree: "d/ 20001 20001 755;d/key 20001 0 600", path: "d/key"},
		{name: "folder of a stranger", uid: daemon, tree: "d/ 20002 0 755;d/key 20001 0 600", path: "d/key", want: "the folder above the key, ROOT/d (owner uid 20002"},
		{name: "folder of the daemon, for root", tree: "d/ 20001 0 755;d/key 0 0 600", path: "d/key", want: "chown root ROOT/d"},
		{name: "folder for all", tree: "d/ 0 0 757;d/key 0 0 600", path: "d/key", want: "chmod o-w ROOT/d"},
		{name: "folder for all, further up", tree: "d/ 0 0 777;d/e/ 0 0 700;d/e/key 0 0 600", path: "d/e/key", want: "chmod go-w ROOT/d"},
		{name: "sticky folder", uid: daemon, tree: "d/ 0 0 1777;d/key 20001 0 600", path: "d/key"},
		{name: "sticky folder, stranger's next", uid: daemon, tree: "d/ 0 0 1777;d/e/ 20002 0 755;d/e/key 20001 0 600", path: "d/e/key", want: "ROOT/d/e (owner uid 20002"},
		{name: "sticky folder of a stranger", tree: "d/ 20002 0 1777;d/key 0 0 600", path: "d/key", want: "chown root ROOT/d"},
		{name: "folder of root's group", tree: "d/ 0 0 775;d/key 0 0 600", path: "d/key"},
		{name: "folder of the daemon's own group", uid: daemon, tree: "d/ 20001 20001 775;d/key 20001 0 600", path: "d/key"},
		{name: "folder of many's group", uid: daemon, tree: "d/ 20001 20003 775;d/key 20001 0 600", path: "d/key", want: "chmod g-w ROOT/d"},
		{name: "folder of the daemon's group, for root", tree: "d/ 0 20001 775;d/key 0 0 600", path: "d/key", want: "others of the group gid 20001 may write to it"},

		{name: "link", tree: "key 0 0 600;l -> key 0", path: "l"},
		{name: "link up and over", tree: "d/ 0 0 755;e/ 0 0 755;e/key 0 0 600;d/l -> ../e/key 0", path: "d/l"},
		{name: "absolute link", tree: "d/ 0 0 755;e/ 0 0 755;e/key 0 0 600;d/l -> ROOT/e/key 0", path: "d/l"},
		{name: "link into a folder for all", tree: "e/ 0 0 777;e/key 0 0 600;l -> e/key 0", path: "l", want: "chmod go-w ROOT/e"},
		{name: "stranger's link in a sticky folder", tree: "key 0 0 600;d/ 0 0 1777;d/l -> ../key 20002", path: "d/l", want: "chown -h root ROOT/d/l"},
		{name: "dots behind a link", tree: "a/ 0 0 755;a/b/ 0 0 755;a/key 0 0 600;l -> a/b 0", path: "l/../key"},
		{name: "circle", tree: "l -> l 0", path: "l", want: "too many levels"},
		{name: "dangling", tree: "l -> nothing 0", path: "l", want: "no such file"},
		{name: "through a file", tree: "key 0 0 600", path: "key/x", want: "not a directory"},

		{name: "for the group that may", tree: fmt.Sprintf("key 0 %d 640", lookupGroup("daemon")), may: Access{Group: "daemon"}},
		{name: "for another group", tree: "key 0 20003 640", may: Access{Group: "daemon"}, want: "chmod 600"},
		{name: "for the group that may to write", tree: fmt.Sprintf("key 0 %d 660", lookupGroup("daemon")), may: Access{Group: "daemon"}, want: "chmod 600"},
		{name: "for all who may", tree: "key 0 0 644", may: Access{Read: true}},
		{name: "for all to write who may read", tree: "key 0 0 646", may: Access{Read: true}, want: "chmod go=r ROOT/key"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.path == "" {
				c.path = "key"
			}
			root := tree(t, c.tree)
			_, err := runner(t, c.uid).Read(root+"/"+c.path, "the key", c.may, 100)
			want := strings.ReplaceAll(c.want, "ROOT", root)
			if got := fmt.Sprint(err); err != nil != (want != "") || !strings.Contains(got, want) {
				t.Errorf("got %v, want %q", err, want)
			}
		})
	}
}

// A list of access rights gives others what the mode's group seems to have.
func TestAccessList(t *testing.T) {
	needRoot(t)
	root := tree(t, "d/ 0 0 775;d/key 0 0 600")
	list := []byte{2, 0, 0, 0} // version; then tag, rights, id (linux/posix_acl_xattr.h)
	for _, e := range []struct {
		tag, rights uint16
		id          uint32
	}{{1, 7, ^uint32(0)}, {2, 7, stranger}, {4, 5, ^uint32(0)}, {16, 7, ^uint32(0)}, {32, 5, ^uint32(0)}} {
		list = append(list, byte(e.tag), byte(e.tag>>8), byte(e.rights), 0, byte(e.id), byte(e.id>>8), byte(e.id>>16), byte(e.id>>24))
	}
	if err := unix.Setxattr(root+"/d", "system.posix_acl_access", list, 0); err == unix.EOPNOTSUPP && os.Getenv("CI") == "" {
		t.Skip("this file system has no access lists")
	} else if err != nil {
		t.Fatal(err)
	}
	if _, err := runner(t, 0).Read(root+"/d/key", "the key", Access{}, 100); err == nil || !strings.Contains(err.Error(), "chmod g-w "+root+"/d") {
		t.Errorf("got %v", err)
	}
}

func TestCredential(t *testing.T) {
	needRoot(t)
	root := tree(t, "c/ 0 0 777;c/key 20002 20003 440;d/ 0 0 777;d/key 0 0 600")
	t.Setenv("CREDENTIALS_DIRECTORY", root+"/c")
	if b, err := runner(t, 0).Read(root+"/c/key", "the key", Access{}, 100); err != nil || string(b) != "x" {
		t.Errorf("a credential: %q, %v", b, err)
	}
	for _, path := range []string{"/d/key", "/c/../d/key"} {
		if _, err := runner(t, 0).Read(root+path, "the key", Access{}, 100); err == nil {
			t.Errorf("%s is no credential", path)
		}
	}
}

func TestFolder(t *testing.T) {
	needRoot(t)
	defer unix.Umask(unix.Umask(0o077))
	w := runner(t, 0)
	root := tree(t, "open/ 0 0 777;sticky/ 0 0 1777;his/ 20002 0 700;group/ 0 0 770;file 0 0 600")
	if err := w.Folder(root+"/a/b", "the folder", 0o755); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{"/a", "/a/b"} {
		if info, err := os.Stat(root + dir); err != nil || info.Mode() != fs.ModeDir|0o755 {
			t.Errorf("%s: %v, %v", dir, info.Mode(), err)
		}
	}
	if err := w.Folder(root+"/sticky/a", "the folder", 0o700); err != nil {
		t.Error(err)
	}
	for path, want := range map[string]string{
		"/open":   "chmod go-w",
		"/open/a": "chmod go-w",
		"/sticky": "chmod go-w",
		"/group":  "chmod go-w",
		"/his":    "chown root",
		"/his/a":  "chown root",
		"/file":   "is not a folder",
		"/file/a": "not a directory",
	} {
		if err := w.Folder(root+path, "the folder", 0o700); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", path, err, want)
		}
	}
	for path, want := range map[string]string{"/sticky/b/key": "", "/sticky/key": "", "/open/key": "chmod go-w", "/his/key": "chown root"} {
		if err := w.Above(root+path, "the file", 0o700); (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("above %s: %v, want %q", path, err, want)
		}
	}
	for _, path := range []string{"/open/a", "/his/a"} {
		if _, err := os.Lstat(root + path); err == nil {
			t.Errorf("%s was made all the same", path)
		}
	}
}

func TestSocket(t *testing.T) {
	needRoot(t)
	root := tree(t, "s/ 0 0 1777;file 0 0 600")
	for name, uid := range map[string]int{"own": daemon, "his": stranger} {
		l, err := net.Listen("unix", root+"/s/"+name)
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		if err := os.Chown(root+"/s/"+name, uid, uid); err != nil {
			t.Fatal(err)
		}
	}
	w := runner(t, daemon)
	if err := w.Socket(root+"/s/own", "the socket"); err != nil {
		t.Error(err)
	}
	for _, path := range []string{"/s/his", "/file"} {
		if err := w.Socket(root+path, "the socket"); err == nil {
			t.Errorf("%s was taken", path)
		}
	}
}

func TestCloseTree(t *testing.T) {
	needRoot(t)
	w := runner(t, daemon)
	root := tree(t, "d/ 20001 20001 700;d/e/ 20001 20001 755;d/e/snapshot 20001 20001 644;d/log 20001 0 600;d/l -> /etc/passwd 20001")
	if err := w.CloseTree(root+"/d", "the data folder"); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(root + "/d/e/snapshot"); err != nil || info.Mode() != 0o600 {
		t.Errorf("a file of the data folder: %v, %v", info.Mode(), err)
	}
	if info, err := os.Stat("/etc/passwd"); err != nil || info.Mode() != 0o644 {
		t.Errorf("a link was followed: %v, %v", info.Mode(), err)
	}
	// Whatever others may do with a file, and they alone or the group.
	for _, mode := range []fs.FileMode{0o601, 0o602, 0o604, 0o610, 0o620, 0o640, 0o777} {
		write(t, root+"/d/e/mode", "x")
		if err := errors.Join(os.Chown(root+"/d/e/mode", daemon, daemon), os.Chmod(root+"/d/e/mode", mode)); err != nil {
			t.Fatal(err)
		}
		err := w.CloseTree(root+"/d", "the data folder")
		if info, err2 := os.Stat(root + "/d/e/mode"); err != nil || err2 != nil || info.Mode() != mode&0o700 {
			t.Errorf("%o became %v, %v", mode, info.Mode(), errors.Join(err, err2))
		}
	}
	write(t, root+"/d/e/his", "x")
	if err := os.Chown(root+"/d/e/his", stranger, stranger); err != nil {
		t.Fatal(err)
	}
	if err := w.CloseTree(root+"/d", "the data folder"); err == nil || !strings.Contains(err.Error(), "chown 20001 "+root+"/d/e/his") {
		t.Errorf("a stranger's file: %v", err)
	}
}

// A folder that is not there is an error; what goes while its folder is read is none.
func TestCloseTreeOfWhatGoes(t *testing.T) {
	w := runner(t, os.Geteuid())
	root := t.TempDir()
	if err := w.CloseTree(root+"/none", "the data folder"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no folder: %v", err)
	}
	stop, gone := make(chan struct{}), make(chan error)
	go func() { // raft's log and snapshots come and go as these do
		defer close(gone)
		for {
			select {
			case <-stop:
				return
			default:
			}
			err := errors.Join(os.MkdirAll(root+"/a/b", 0o700), os.WriteFile(root+"/a/b/c", nil, 0o600), os.RemoveAll(root+"/a"))
			if err != nil {
				gone <- err
				return
			}
		}
	}()
	for range 3000 {
		if err := w.CloseTree(root, "the data folder"); err != nil {
			t.Error(err)
			break
		}
	}
	close(stop)
	if err := <-gone; err != nil {
		t.Error(err)
	}
}

// The root itself is a place, too, and has nothing above it.
func TestWalkRoot(t *testing.T) {
	w := runner(t, os.Geteuid())
	for _, path := range []string{"/", "/..", "/tmp/.."} {
		p, err := w.walk(path, "the root", end{})
		if err != nil {
			t.Errorf("%s: %v", path, err)
			continue
		}
		if p.path != "/" || p.parent != -1 || len(p.above) != 0 {
			t.Errorf("%s: %+v", path, p)
		}
		p.close()
	}
}

func TestPrivateGroup(t *testing.T) {
	w := runner(t, daemon)
	for _, c := range []struct {
		name, passwd, group string
		gid                 int
		want                bool
	}{
		{"own", "daemon:x:20001:20001::\n", "daemon:x:20001:\n", daemon, true},
		{"own, named as a member", "daemon:x:20001:20001::\n", "daemon:x:20001:daemon\n", daemon, true},
		{"with another member", "daemon:x:20001:20001::\n", "daemon:x:20001:eve\n", daemon, false},
		{"another's first, too", "daemon:x:20001:20001::\neve:x:20002:20001::\n", "daemon:x:20001:\n", daemon, false},
		{"a user whom the files do not know", "", "", daemon, true},
		{"a group of his number with a member", "", "daemon:x:20001:eve\n", daemon, false},
		{"root's", "", "", 0, true},
		{"root's with a member", "", "root:x:0:eve\n", 0, false},
		{"another", "daemon:x:20001:20001::\n", "crowd:x:20003:\n", crowd, false},
	} {
		write(t, w.passwd, c.passwd)
		write(t, w.group, c.group)
		if got := w.private(c.gid); got != c.want {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
	w.GID = crowd
	write(t, w.passwd, "daemon:x:20001:20003::\n")
	write(t, w.group, "crowd:x:20003:\n")
	if !w.private(crowd) {
		t.Error("a group that is the user's first, and nobody else's, is not taken for his own")
	}
	write(t, w.group, "")
	if w.private(crowd) {
		t.Error("a group that the files do not know is taken for the user's own")
	}
	os.Remove(w.group)
	if err := os.Mkdir(w.group, 0o700); err != nil {
		t.Fatal(err)
	}
	if w.private(0) {
		t.Error("a group file that cannot be read is taken for one without members")
	}
}

func TestQuote(t *testing.T) {
	for in, want := range map[string]string{"/a/b-c_d.e": "/a/b-c_d.e", "/a b": "'/a b'", "/a'b": `'/a'\''b'`, "/$x": "'/$x'"} {
		if got := quote(in); got != want {
			t.Errorf("%s: %s", in, got)
		}
	}
}
