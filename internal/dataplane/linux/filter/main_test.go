package filter

import (
	"errors"
	"os"
	"os/exec"
	"strings"
	"testing"
)

// inside says that this process is the one in its own namespaces.
const inside = "VPND_FILTER_TEST_INSIDE"

// TestMain runs the tests again in network and mount namespaces of their own, so that
// nothing here touches the host's.
func TestMain(m *testing.M) {
	if _, err := exec.LookPath("ip"); err != nil || os.Getenv(inside) != "" || os.Geteuid() != 0 {
		os.Exit(m.Run()) // needNamespaces tells what is missing
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

// packages are Debian's, of the tools that the tests call.
var packages = map[string]string{"ip": "iproute2", "nft": "nftables", "conntrack": "conntrack", "ping": "iputils-ping", "ufw": "ufw", "iptables": "iptables"}

// needNamespaces ends a test that cannot run here, as it is not root's or a tool is missing: in
// CI that is a failure. more are tools beside those that nearly all need.
func needNamespaces(t testing.TB, more ...string) {
	t.Helper()
	var missing []string
	if os.Geteuid() != 0 {
		missing = append(missing, "root")
	}
	for _, tool := range append([]string{"ip", "nft", "conntrack", "ping"}, more...) {
		if _, err := exec.LookPath(tool); err != nil {
			missing = append(missing, "the package "+packages[tool])
		}
	}
	if missing == nil {
		return
	}
	if os.Getenv("CI") != "" {
		t.Fatal("network namespaces need", strings.Join(missing, ", "))
	}
	t.Skip("network namespaces need", strings.Join(missing, ", "))
}
