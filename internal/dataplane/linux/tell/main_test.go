package tell

import (
	"errors"
	"os"
	"os/exec"
	"testing"
)

// inside says that this process is the one in its own namespaces.
const inside = "VPND_TELL_TEST_INSIDE"

// TestMain runs the tests again in network and mount namespaces of their own, so that
// nothing here touches the host's.
func TestMain(m *testing.M) {
	if os.Getenv(inside) != "" || os.Geteuid() != 0 {
		os.Exit(m.Run())
	}
	cmd := exec.Command("unshare", append([]string{"-n", "-m", "--", "sh", "-c",
		`mount -t tmpfs tmpfs /run && ip link set lo up && exec "$0" "$@"`, os.Args[0]}, os.Args[1:]...)...)
	cmd.Env = append(os.Environ(), inside+"=1")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	err := cmd.Run()
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit):
		os.Exit(exit.ExitCode())
	case err != nil:
		println("unshare (util-linux) and ip (iproute2) are needed:", err.Error())
		os.Exit(1)
	}
}

// needNamespaces ends a test that cannot run here: in CI that is a failure.
func needNamespaces(t *testing.T) {
	t.Helper()
	if os.Getenv(inside) != "" {
		return
	}
	if os.Getenv("CI") != "" {
		t.Fatal("network namespaces need root")
	}
	t.Skip("network namespaces need root")
}
