package linux

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
)

// The tests that touch a network run in a network and mount namespace of their own, with
// an empty /run (so also /var/run/wireguard and /run/netns): TestMain starts the test
// binary again inside. The pure tests run there as well.

const insideEnv = "VPND_TEST_INSIDE"

func TestMain(m *testing.M) {
	if os.Getenv(helperEnv) != "" {
		os.Exit(helper())
	}
	if _, err := exec.LookPath("ip"); err == nil && os.Getenv(insideEnv) == "" && os.Geteuid() == 0 {
		os.Exit(reexec())
	}
	if os.Getenv(insideEnv) != "" {
		if err := prepare(); err != nil {
			fmt.Fprintln(os.Stderr, "preparing the test's namespaces:", err)
			os.Exit(1)
		}
	}
	os.Exit(m.Run())
}

func reexec() int {
	exe, err := os.Executable()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	c := exec.Command(exe, os.Args[1:]...)
	c.Stdin, c.Stdout, c.Stderr = os.Stdin, os.Stdout, os.Stderr
	c.Env = append(os.Environ(), insideEnv+"=1")
	c.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	err = c.Run()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return exit.ExitCode()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

func prepare() error {
	if err := syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("making mounts private: %w", err)
	}
	for _, dir := range []string{"/run"} {
		if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, ""); err != nil {
			return fmt.Errorf("mounting an empty %s: %w", dir, err)
		}
	}
	if err := os.MkdirAll("/run/netns", 0o755); err != nil {
		return err
	}
	return exec.Command("ip", "link", "set", "lo", "up").Run()
}

// packages are Debian's, of the tools that the tests call.
var packages = map[string]string{"ip": "iproute2", "wg": "wireguard-tools", "wireguard-go": "wireguard-go", "nft": "nftables",
	"ping": "iputils-ping", "nc": "netcat-openbsd", "sysctl": "procps", "iperf3": "iperf3", "conntrack": "conntrack"}

// needNet fails, or outside of CI skips, a test that needs root and tools.
func needNet(t *testing.T, tools ...string) {
	t.Helper()
	var missing []string
	if os.Geteuid() != 0 {
		missing = append(missing, "root")
	}
	for _, tool := range append(tools, "ip") {
		if _, err := exec.LookPath(tool); err != nil {
			missing = append(missing, "the package "+cmp.Or(packages[tool], tool))
		}
	}
	if missing == nil {
		return
	}
	if os.Getenv("CI") != "" {
		t.Fatal("needs", strings.Join(missing, ", "))
	}
	t.Skip("needs", strings.Join(missing, ", "))
}

// run runs a command line and returns what it printed.
func run(t *testing.T, line string) string {
	t.Helper()
	out, err := try(line)
	if err != nil {
		t.Fatalf("%s: %v\n%s", line, err, out)
	}
	return out
}

func try(line string) (string, error) {
	var out bytes.Buffer
	c := exec.Command("sh", "-c", line)
	c.Stdout, c.Stderr = &out, &out
	c.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	err := c.Run()
	return strings.TrimSpace(out.String()), err
}
