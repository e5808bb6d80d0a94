package linux

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/google/nftables"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"vpnd/internal/dataplane"
)

// Probe says in one line what this process lacks to run the linux plane here; nil when
// it can. It changes nothing on the host.
func Probe(_ context.Context, c dataplane.Config) error {
	if err := checkName(c.Interface); err != nil {
		return err
	}
	var missing []string
	if ok, err := netAdmin(); err != nil {
		return err
	} else if !ok {
		// Without it the other probes only fail for the same reason.
		return errors.New("the linux plane needs CAP_NET_ADMIN (run as root)")
	}
	if err := probeWireGuard(); err != nil {
		missing = append(missing, err.Error())
	}
	if err := probeNFT(); err != nil {
		missing = append(missing, err.Error())
	}
	for _, key := range []string{all4, all6} {
		file := "/proc/sys/" + key
		// With the effective rights: CAP_NET_ADMIN may write these without being root.
		if err := unix.Faccessat(unix.AT_FDCWD, file, unix.W_OK, unix.AT_EACCESS); err != nil && !(key == all6 && errors.Is(err, unix.ENOENT)) {
			missing = append(missing, fmt.Sprintf("writable sysctls (%s: %v)", file, err))
			break
		}
	}
	if len(missing) > 0 {
		return fmt.Errorf("the linux plane needs %s", strings.Join(missing, ", and "))
	}
	return nil
}

// netAdmin says whether the process has CAP_NET_ADMIN in effect.
func netAdmin() (bool, error) {
	h := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var d [2]unix.CapUserData
	if err := unix.Capget(&h, &d[0]); err != nil {
		return false, fmt.Errorf("reading the process's capabilities: %w", err)
	}
	return d[0].Effective&(1<<unix.CAP_NET_ADMIN) != 0, nil
}

// probeWireGuard looks for a WireGuard that can be had: the kernel's, loaded, built in or
// as a module file, or a TUN device for wireguard-go.
func probeWireGuard() error {
	if _, err := netlink.GenlFamilyGet("wireguard"); err == nil {
		return nil
	}
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err == nil {
		return errors.Join(unix.Close(fd), probeSockets("/var/run/wireguard"))
	}
	var u unix.Utsname
	if unix.Uname(&u) == nil {
		if dep, err := os.ReadFile("/lib/modules/" + unix.ByteSliceToString(u.Release[:]) + "/modules.dep"); err == nil &&
			bytes.Contains(dep, []byte("/wireguard.ko")) {
			return nil
		}
	}
	if errors.Is(err, unix.EACCES) || errors.Is(err, unix.EPERM) {
		return fmt.Errorf("leave to use the TUN device that is there (/dev/net/tun: %w; udev gives it mode 0666), or the kernel's WireGuard", err)
	}
	return fmt.Errorf("a TUN device or the kernel's WireGuard (/dev/net/tun: %w)", err)
}

// probeSockets looks whether wireguard-go can have its control socket in dir, where wg(8)
// looks for it.
func probeSockets(dir string) error {
	err := unix.Faccessat(unix.AT_FDCWD, dir, unix.W_OK|unix.X_OK, unix.AT_EACCESS)
	if errors.Is(err, unix.ENOENT) {
		err = unix.Faccessat(unix.AT_FDCWD, filepath.Dir(dir), unix.W_OK|unix.X_OK, unix.AT_EACCESS)
	}
	if err != nil {
		return fmt.Errorf("a folder %s that its user may write (%w; a unit's RuntimeDirectory= makes one), or the kernel's WireGuard", dir, err)
	}
	return nil
}

func probeNFT() error {
	c, err := nftables.New()
	if err == nil {
		_, err = c.ListTablesOfFamily(nftables.TableFamilyINet)
	}
	if err != nil {
		return fmt.Errorf("nftables in the kernel (nf_tables: %w)", err)
	}
	return nil
}
