package e2e

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"
)

// machine is a host that boots Debian with a real init as process 1, in systemd-nspawn.
type machine struct {
	*host
	root string // its file system, as we see it
	boot *process
	pid  int // of its process 1, in our PID namespace
	// engine says that it runs containers itself: podman 5 wants cgroups of the second kind, and crun bpf.
	engine bool
}

// newMachine boots a host as one of Debian's systems that test/debian has made; it writes
// into a layer of its own, on disk.
func (w *world) newMachine(h *host, system string) *machine {
	w.t.Helper()
	base := project(w.t, ".run/debian/"+system)
	if _, err := os.Stat(base + ".done"); err != nil {
		w.t.Fatalf("%v: test/debian makes it", err)
	}
	dir, err := os.MkdirTemp(project(w.t, ".run"), "machine-")
	if err != nil {
		w.t.Fatal(err)
	}
	m := &machine{host: h, root: filepath.Join(dir, "root"), engine: system == "containers"}
	for _, d := range []string{"root", "upper", "work"} {
		if err := os.Mkdir(filepath.Join(dir, d), 0o755); err != nil {
			w.t.Fatal(err)
		}
	}
	must(w.t, "mount", "-t", "overlay", "overlay", "-o",
		fmt.Sprintf("lowerdir=%s,upperdir=%s/upper,workdir=%s/work", base, dir, dir), m.root)
	w.t.Cleanup(func() {
		syscall.Unmount(m.root, syscall.MNT_DETACH)
		os.RemoveAll(dir)
	})
	m.start()
	w.machine = m
	return m
}

// in is the machine for a subtest.
func (m *machine) in(t *testing.T) *machine {
	sub := *m
	sub.t = t
	return &sub
}

// start boots the machine and waits until its init has come up.
func (m *machine) start() {
	m.t.Helper()
	// Not by ip netns exec, whose fresh /sys has no cgroups.
	c := exec.Command("systemd-nspawn", "-q", "-b", "-D", m.root, "--register=no", "--keep-unit",
		"--machine="+m.name, "--console=pipe", "--link-journal=no", "--network-namespace-path=/run/netns/"+m.name,
		"--capability=CAP_NET_ADMIN,CAP_NET_RAW,CAP_NET_BIND_SERVICE,CAP_MKNOD")
	// The network's sysctls are the machine's own.
	c.Env = append(os.Environ(), "SYSTEMD_NSPAWN_API_VFS_WRITABLE=network")
	if m.engine {
		c.Env = append(c.Env, "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY=1")
		c.Args = append(c.Args, "--system-call-filter=bpf")
	}
	m.boot = launch(m.t, m.name, c)
	eventually(m.t, 90*time.Second, "the machine has booted", func() error {
		select {
		case <-m.boot.done:
			m.t.Fatalf("the machine has ended:\n%s", m.boot.log)
		default:
		}
		if err := m.findInit(); err != nil {
			return err
		}
		if out, err := m.try("sh", "-c", "systemctl is-system-running 2>/dev/null || runlevel"); !strings.Contains(out, "running") && !strings.Contains(out, "degraded") && !strings.Contains(out, "N 2") {
			return fmt.Errorf("%s %v", out, err)
		}
		return nil
	})
}

// findInit finds the process whose parent is nspawn.
func (m *machine) findInit() error {
	out, err := exec.Command("pgrep", "-P", fmt.Sprint(m.boot.cmd.Process.Pid)).Output()
	if err != nil {
		return fmt.Errorf("no init yet: %w", err)
	}
	_, err = fmt.Sscan(string(out), &m.pid)
	return err
}

// try runs a command inside the machine and gives its standard output.
func (m *machine) try(args ...string) (string, error) {
	c := exec.Command("nsenter", append([]string{"-t", fmt.Sprint(m.pid), "-a", "env", "-i",
		"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "LC_ALL=C.UTF-8", "DEBIAN_FRONTEND=noninteractive"}, args...)...)
	c.Dir = "/"
	var out, errs bytes.Buffer
	c.Stdout, c.Stderr = &out, &errs
	if err := c.Run(); err != nil {
		return out.String(), fmt.Errorf("%s: %w: %s", strings.Join(args, " "), err, tail(errs.String(), 3000))
	}
	return strings.TrimSuffix(out.String(), "\n"), nil
}

// run is try that fails the test.
func (m *machine) run(args ...string) string {
	m.t.Helper()
	out, err := m.try(args...)
	if err != nil {
		m.t.Fatalf("%v\n%s", err, tail(out, 4000))
	}
	return out
}

// put copies a file into the machine.
func (m *machine) put(from, to string) {
	m.t.Helper()
	b, err := os.ReadFile(from)
	if err != nil {
		m.t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(m.root, to), b, 0o644); err != nil {
		m.t.Fatal(err)
	}
}

// reboot stops the machine in an orderly way and boots it again.
func (m *machine) reboot() {
	m.t.Helper()
	m.try("poweroff") // may be cut off itself
	select {
	case <-m.boot.done:
	case <-time.After(60 * time.Second):
		m.t.Fatalf("the machine does not stop:\n%s", tail(m.boot.log.String(), 3000))
	}
	// sysvinit's halt takes interfaces down; what ifupdown would do at boot is done here.
	for _, i := range []string{"eth0", "eth1"} {
		m.host.run("ip", "link", "set", i, "up")
	}
	m.host.try("ip", "addr", "add", gwPublic6+"/64", "dev", "eth0", "nodad")
	m.host.try("ip", "addr", "add", "2001:db8:2::1/64", "dev", "eth1", "nodad")
	m.start()
}

// deb is the package that test/run has built for this machine's architecture.
func deb(t *testing.T, folder string) string {
	t.Helper()
	found, err := filepath.Glob(project(t, filepath.Join("dist", folder, "vpnd_*_"+runtime.GOARCH+".deb")))
	if err != nil || len(found) != 1 {
		t.Fatalf("want one package in dist/%s, found %q (%v): make deb builds it", folder, found, err)
	}
	return found[0]
}

// project is a path in the repository.
func project(t *testing.T, path string) string {
	t.Helper()
	wd, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	return filepath.Join(wd, "../..", path)
}
