package linux

import (
	"context"
	"fmt"
	"regexp"
)

// Options are what tests and special hosts decide otherwise. The zero value is right
// for everybody else.
type Options struct {
	// WireGuard forces an implementation: "kernel" or "go"; "" takes the kernel's
	// where there is one.
	WireGuard string
	// StateDir holds what a later start must know to put the host back: "/run/vpnd".
	// It must not outlive a reboot, and must outlive the daemon (in a systemd unit:
	// RuntimeDirectoryPreserve=yes).
	StateDir string
	// GlobalForwarding6 ignores force_forwarding (Linux 6.17), as older kernels must.
	GlobalForwarding6 bool
	// OpenFilter opens the packet filter.
	OpenFilter func(context.Context, FilterConfig) (PacketFilter, error)
}

func (o Options) withDefaults() Options {
	if o.StateDir == "" {
		o.StateDir = "/run/vpnd"
	}
	if o.OpenFilter == nil {
		o.OpenFilter = openFilter
	}
	return o
}

// ifaceName is what the kernel takes (15 bytes), less what a shell, a path or nft would
// have to quote.
var ifaceName = regexp.MustCompile(`^[a-zA-Z0-9_][a-zA-Z0-9_.-]{0,14}$`)

func checkName(name string) error {
	if !ifaceName.MatchString(name) || name == "lo" || name == "all" || name == "default" {
		return fmt.Errorf("interface name %q cannot be used: take 1 to 15 letters, digits, '_', '.' or '-'", name)
	}
	return nil
}
