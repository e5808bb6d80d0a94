package doctor

import (
	"context"
	"encoding/hex"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

func (g *Gateway) port(context.Context) []*Finding { return Port("/proc/net", g.WireGuard) }

// Port looks who has WireGuard's port, by /proc/net/udp and udp6 (proc_net(5)).
func Port(proc string, listen netip.AddrPort) (out []*Finding) {
	mine := 0
	for _, name := range []string{"udp", "udp6"} {
		for _, a := range sockets(filepath.Join(proc, name)) {
			if a.Port() != listen.Port() {
				continue
			}
			// WireGuard of the kernel listens on all addresses, whatever was asked.
			if a.Addr().IsUnspecified() || a.Addr() == listen.Addr().Unmap() {
				mine++
				continue
			}
			out = append(out, find("port_shared", "address", a, "port", listen.Port()))
		}
	}
	switch {
	case out != nil:
	case mine == 0:
		out = append(out, find("port_closed", "port", listen.Port()))
	default:
		out = append(out, find("port_ok", "port", listen.Port()))
	}
	return out
}

// sockets are the local addresses in a table of the kernel's; none where it cannot be read.
func sockets(file string) (out []netip.AddrPort) {
	b, err := os.ReadFile(file)
	if err != nil {
		return nil
	}
	for l := range strings.Lines(string(b)) {
		f := strings.Fields(l)
		if len(f) < 2 {
			continue
		}
		host, port, ok := strings.Cut(f[1], ":")
		raw, err := hex.DecodeString(host)
		n, portErr := strconv.ParseUint(port, 16, 16)
		if !ok || err != nil || portErr != nil {
			continue // the heading
		}
		for i := 0; i+4 <= len(raw); i += 4 { // words in the host's order: all ports of ours are little endian
			slices.Reverse(raw[i : i+4])
		}
		if a, ok := netip.AddrFromSlice(raw); ok {
			out = append(out, netip.AddrPortFrom(a.Unmap(), uint16(n)))
		}
	}
	return out
}
