package linux

import (
	"os"
	"path/filepath"
	"testing"
)

// fakeSysctls is a tree of files in place of /proc/sys.
func fakeSysctls(t *testing.T, values map[string]string) (root, dir string) {
	t.Helper()
	root, dir = t.TempDir(), filepath.Join(t.TempDir(), "vpnd")
	values["kernel/random/boot_id"] = "0a1b2c3d-0000"
	for k, v := range values {
		file := filepath.Join(root, k)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(v+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return root, dir
}

// set writes a value as the owner does; the files of /proc/sys are never truncated.
func set(t *testing.T, root, key, value string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(root, key), []byte(value), 0o600); err != nil {
		t.Fatal(err)
	}
}

func openFake(t *testing.T, root, dir string) *sysctls {
	t.Helper()
	s, err := openSysctls(root, dir)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func expect(t *testing.T, s *sysctls, key, want string) {
	t.Helper()
	if got, err := s.get(key); err != nil || got != want {
		t.Errorf("%s is %q, %v; want %q", key, got, err, want)
	}
}

func TestSysctlsSurviveSIGKILL(t *testing.T) {
	const a, b, c, gone = "net/a/forwarding", "net/b/forwarding", "net/c/forwarding", "net/gone/forwarding"
	root, dir := fakeSysctls(t, map[string]string{a: "0", b: "0", c: "1", gone: "0"})
	first := openFake(t, root, dir)
	for _, k := range []string{a, b, c, gone} {
		if changed, err := first.change(k, "1"); err != nil || changed != (k != c) {
			t.Errorf("%s: changed %v, %v", k, changed, err)
		}
	}
	// Killed here. The second start finds its values in place, and must not take them for
	// the host's.
	second := openFake(t, root, dir)
	if changed, err := second.change(a, "1"); err != nil || changed {
		t.Errorf("changed %v, %v", changed, err)
	}
	set(t, root, b, "2") // by the owner
	set(t, root, c, "0") // by the owner; it was never ours
	if err := os.Remove(filepath.Join(root, gone)); err != nil {
		t.Fatal(err)
	}
	if err := second.restore(); err != nil {
		t.Fatal(err)
	}
	expect(t, second, a, "0")
	expect(t, second, b, "2")
	expect(t, second, c, "0")
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("left: %v, %v", left, err)
	}
}

func TestSysctlsOfAnotherBoot(t *testing.T) {
	const a = "net/a/forwarding"
	root, dir := fakeSysctls(t, map[string]string{a: "0"})
	if _, err := openFake(t, root, dir).change(a, "1"); err != nil {
		t.Fatal(err)
	}
	set(t, root, "kernel/random/boot_id", "ffffffff-0000")
	if err := openFake(t, root, dir).restore(); err != nil {
		t.Fatal(err)
	}
	expect(t, openFake(t, root, dir), a, "1") // what another boot's vpnd noted is not this one's
}

func TestSysctlsGiveBackAndForget(t *testing.T) {
	const a, b = "net/a/forwarding", "net/b/forwarding"
	root, dir := fakeSysctls(t, map[string]string{a: "0", b: "0"})
	s := openFake(t, root, dir)
	for _, k := range []string{a, b} {
		if _, err := s.change(k, "1"); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.giveBack(a); err != nil {
		t.Fatal(err)
	}
	expect(t, s, a, "0")
	if err := s.forget(b); err != nil {
		t.Fatal(err)
	}
	if err := openFake(t, root, dir).restore(); err != nil {
		t.Fatal(err)
	}
	expect(t, s, b, "1")
}

func TestSysctlFileUnreadable(t *testing.T) {
	const a = "net/a/forwarding"
	root, dir := fakeSysctls(t, map[string]string{a: "0"})
	s := openFake(t, root, dir)
	if _, err := s.change(a, "1"); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(s.file, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := openSysctls(root, dir); err == nil {
		t.Error("a broken file is taken for an empty one: the host's values would be lost")
	}
}

func TestDotted(t *testing.T) {
	if got := dotted("net/ipv4/conf/eth0.7/forwarding"); got != "net.ipv4.conf.eth0/7.forwarding" {
		t.Error(got)
	}
}
