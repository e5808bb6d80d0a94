package local

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

func listen(t *testing.T, path string) net.Listener {
	t.Helper()
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

func TestSocket(t *testing.T) {
	dir := realPath(t.TempDir())
	at := func(name string) string { return filepath.Join(dir, name) }
	for _, name := range []string{"app", "other", "own", "docker.sock"} {
		listen(t, at(name))
	}
	links := map[string]string{"to-app": "app", "to-other": "other", "to-own": "own", "to-docker": "docker.sock"}
	for from, to := range links {
		if err := os.Symlink(at(to), at(from)); err != nil {
			t.Fatal(err)
		}
	}
	for from, to := range map[string]string{"hard-own": "own", "hard-app": "app"} {
		if err := os.Link(at(to), at(from)); err != nil {
			t.Fatal(err)
		}
	}
	os.WriteFile(at("file"), nil, 0o600)
	stale, _ := net.ListenUnix("unix", &net.UnixAddr{Name: at("stale"), Net: "unix"})
	stale.SetUnlinkOnClose(false)
	stale.Close()
	datagrams, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: at("datagrams"), Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer datagrams.Close()

	var list []Target
	for _, name := range []string{"app", "own", "hard-own", "to-own", "docker.sock", "to-docker", "file", "stale", "datagrams", "gone", "none/gone"} {
		list = append(list, Target{Path: at(name)})
	}
	g := NewGuard(nil, []string{at("own")}, list)
	for name, want := range map[string]string{
		"app": "", "to-app": "",
		"hard-app": "may not be published", "other": "may not be published", "to-other": "leads to",
		"own": "vpnd's own", "to-own": "vpnd's own", "hard-own": "vpnd's own socket, by another name",
		"docker.sock": "whole host", "to-docker": "whole host",
		"file": "is no socket", "stale": "nobody answers", "datagrams": "carries no streams",
		"gone": "start the service", "none/gone": "start the service", "nobody-named-it": "may not be published",
	} {
		c, err := g.Socket(t.Context(), at(name))
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", name, err, want)
		}
		if err == nil {
			c.Close()
		}
		if cerr := g.CheckSocket(at(name)); name != "stale" && name != "datagrams" && (cerr == nil) != (want == "") {
			t.Errorf("%s: checked: %v", name, cerr)
		}
	}
	if _, err := g.Socket(t.Context(), at("stale")); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("%v is not a refusal", err)
	}

	// A link that was allowed and leads elsewhere later.
	g.Allow([]Target{{Path: at("to-app")}})
	if c, err := g.Socket(t.Context(), at("to-app")); err != nil {
		t.Error(err)
	} else {
		c.Close()
	}
	os.Remove(at("to-app"))
	os.Symlink(at("other"), at("to-app"))
	var refused *NotAllowedError
	if _, err := g.Socket(t.Context(), at("to-app")); !errors.As(err, &refused) || refused.Link != at("other") {
		t.Errorf("the link leads elsewhere: %v", err)
	}
}

func TestMissing(t *testing.T) {
	info := []byte(`22 1 254:0 / / rw - ext4 /dev/root rw
30 22 0:5 / /tmp rw - tmpfs tmpfs rw
31 22 254:0 /tmp/systemd-private-abc-vpnd.service-x/tmp /tmp rw - ext4 /dev/root rw
32 22 0:24 /systemd/inaccessible/dir /home ro - tmpfs tmpfs rw
33 22 0:25 / /mnt/a\040b rw - tmpfs tmpfs rw
`)
	for dir, want := range map[string]struct {
		mount string
		hides bool
	}{
		"/":          {"/", false},
		"/run":       {"/", false},
		"/tmp":       {"/tmp", true},
		"/tmp/x":     {"/tmp", true},
		"/tmpx":      {"/", false},
		"/home":      {"/home", true},
		"/mnt/a b/c": {"/mnt/a b", false},
	} {
		if mount, hides := hidingMount(info, dir); mount != want.mount || hides != want.hides {
			t.Errorf("%s: %s, %v", dir, mount, hides)
		}
	}
}

// A socket below what the unit's sandbox has put over a folder is said to be hidden.
func TestHiddenBySandbox(t *testing.T) {
	dir := realPath(t.TempDir())
	path := filepath.Join(dir, "app")
	listen(t, path)
	g := NewGuard(nil, nil, []Target{{Path: path}})
	errs := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with its namespace
		if err := unix.Unshare(unix.CLONE_FS | unix.CLONE_NEWNS); err != nil {
			errs <- nil
			return
		}
		if err := errors.Join(unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""), unix.Mount("none", dir, "tmpfs", 0, "")); err != nil {
			errs <- nil
			return
		}
		errs <- g.CheckSocket(path)
	}()
	switch err := <-errs; {
	case err == nil:
		t.Skip("no mount namespaces here")
	case !strings.Contains(err.Error(), "hidden") || !strings.Contains(err.Error(), "BindPaths"):
		t.Error(err)
	}
	if err := g.CheckSocket(path); err != nil {
		t.Error(err)
	}
}
