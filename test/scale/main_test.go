// Package scale measures the policy at the sizes that are promised: compiling it, bringing
// it and its changes into the kernel, and what it costs each packet (docs/benchmarks.md).
// In a test run it is small, proves that all of it works, and asserts no speed.
//
// The test binary runs again in network and mount namespaces of its own.
package scale

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
)

const inside = "VPND_SCALE_TEST_INSIDE"

func TestMain(m *testing.M) {
	os.Setenv("PATH", os.Getenv("PATH")+":/usr/sbin:/sbin")
	if text := os.Getenv("VPND_SCALE_JOB"); text != "" {
		if err := runJob(text); err != nil {
			fmt.Fprintln(os.Stderr, "scale:", err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	if os.Getenv(inside) != "" || os.Geteuid() != 0 {
		os.Exit(m.Run())
	}
	c := exec.Command("unshare", append([]string{"-n", "-m", "--", "sh", "-c",
		`mount -t tmpfs tmpfs /run && mkdir -p /run/netns /run/wireguard && ip link set lo up && exec "$0" "$@"`, os.Args[0]}, os.Args[1:]...)...)
	c.Env = append(os.Environ(), inside+"=1")
	c.Stdin, c.Stdout, c.Stderr = os.Stdin, os.Stdout, os.Stderr
	c.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	err := c.Run()
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit):
		os.Exit(exit.ExitCode())
	case err != nil:
		fmt.Fprintln(os.Stderr, "unshare (util-linux) and ip (iproute2) are needed:", err)
		os.Exit(1)
	}
}

// needNamespaces ends a test that cannot run here: in CI that is a failure.
func needNamespaces(t *testing.T, tools ...string) {
	t.Helper()
	var missing []string
	if os.Getenv(inside) == "" {
		missing = append(missing, "root, for network namespaces")
	}
	for _, tool := range tools {
		if _, err := exec.LookPath(tool); err != nil {
			missing = append(missing, tool)
		}
	}
	if len(missing) == 0 {
		return
	}
	what := "this needs " + strings.Join(missing, ", ")
	if os.Getenv("CI") != "" {
		t.Fatal(what)
	}
	t.Skip(what)
}

// sh runs a script.
func sh(t *testing.T, script string) {
	t.Helper()
	if out, err := exec.Command("sh", "-ec", script).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", script, err, out)
	}
}
