// Package e2e runs the built binaries between network namespaces with clients that nobody
// here wrote: Debian's wireguard-go and wg, curl, oathtool, zbarimg, iperf3, Chromium.
//
// The whole test binary runs in a network and a mount namespace of its own, with its own
// /run, /var/lib/vpnd and /etc/vpnd: nothing that it does can reach the host or leave the
// machine, several runs do not meet, and the kernel clears up whatever a failure leaves.
package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
)

// tools are what the tests call; test/run installs them.
var tools = []string{"ip", "wg", "wireguard-go", "nft", "conntrack", "curl", "oathtool", "iperf3", "nc", "ping", "setpriv", "tcpdump"}

// browserTools are needed where there is a screen to look at, and time: not on the emulated machine
// of test/kernel.
var browserTools = []string{"zbarimg", "chromium", "prometheus"}

// onOtherKernel says that test/kernel runs us.
var onOtherKernel = os.Getenv("VPND_E2E_KERNEL") != ""

const inside = "VPND_E2E_INSIDE"

func TestMain(m *testing.M) {
	os.Setenv("PATH", os.Getenv("PATH")+":/usr/sbin:/sbin")
	if ports := os.Getenv("VPND_E2E_RESOURCE"); ports != "" {
		fmt.Fprintln(os.Stderr, "e2e:", resource(ports))
		os.Exit(1)
	}
	if job := os.Getenv("VPND_E2E_MEMORY"); job != "" {
		if err := measureMemory(job); err != nil {
			fmt.Fprintln(os.Stderr, "e2e:", err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	if os.Getenv(inside) == "" {
		os.Exit(enter())
	}
	if err := prepare(); err != nil {
		fmt.Fprintln(os.Stderr, "e2e:", err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// enter checks what is needed and runs this binary again in namespaces of its own.
func enter() int {
	fail := func(format string, args ...any) int {
		fmt.Fprintf(os.Stderr, "e2e: "+format+"\n", args...)
		return 1
	}
	if os.Geteuid() != 0 {
		return fail("network namespaces need root: sudo make test")
	}
	var missing []string
	need := tools
	if !onOtherKernel {
		need = slices.Concat(need, browserTools, protocolTools)
	}
	for _, t := range need {
		if _, err := exec.LookPath(t); err != nil {
			missing = append(missing, t)
		}
	}
	if len(missing) > 0 {
		return fail("these tools are missing: %s; make test installs them", strings.Join(missing, " "))
	}
	for _, b := range []string{"vpnd", "vpnctl", "protected-app"} {
		if _, err := os.Stat(binary(b)); err != nil {
			return fail("%v: run make build first", err)
		}
	}
	self, err := os.Executable()
	if err != nil {
		return fail("%v", err)
	}
	c := exec.Command(self, os.Args[1:]...)
	c.Env = append(os.Environ(), inside+"=1")
	c.Stdin, c.Stdout, c.Stderr = os.Stdin, os.Stdout, os.Stderr
	c.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:   syscall.CLONE_NEWNET | syscall.CLONE_NEWNS | syscall.CLONE_NEWPID,
		Unshareflags: 0,
		Pdeathsig:    syscall.SIGKILL, // the namespaces, and all in them, go with the test
	}
	if err := c.Run(); err != nil {
		if c.ProcessState != nil && c.ProcessState.ExitCode() > 0 {
			return c.ProcessState.ExitCode()
		}
		return fail("%v", err)
	}
	return 0
}

// prepare gives the new namespaces a /proc, and folders that only they see.
func prepare() error {
	if err := syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("making mounts private: %w", err)
	}
	if err := syscall.Mount("proc", "/proc", "proc", 0, ""); err != nil {
		return fmt.Errorf("mounting /proc: %w", err)
	}
	for _, dir := range []string{"/run", "/var/lib", "/etc/vpnd"} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
		if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "mode=0755"); err != nil {
			return fmt.Errorf("mounting a tmpfs on %s: %w", dir, err)
		}
	}
	// Copies that everybody may run, whoever owns the repository.
	if err := os.Mkdir("/run/bin", 0o755); err != nil {
		return err
	}
	for _, name := range []string{"vpnd", "protected-app"} {
		b, err := os.ReadFile(binary(name))
		if err != nil {
			return err
		}
		if err := os.WriteFile(readable(name), b, 0o755); err != nil {
			return err
		}
	}
	// wireguard-go's sockets: root's, and those of a vpnd that runs as another user.
	if err := os.MkdirAll("/run/wireguard", 0o755); err != nil {
		return err
	}
	return os.Chmod("/run/wireguard", os.ModeSticky|0o777)
}

// binary is the path of a built program.
func binary(name string) string {
	wd, err := os.Getwd()
	if err != nil {
		panic(err)
	}
	return filepath.Join(wd, "../../bin", name)
}

// readable is the path of a copy of vpnd or protected-app that any user may run.
func readable(name string) string { return filepath.Join("/run/bin", name) }
