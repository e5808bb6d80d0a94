// Package locals keeps the list of what resources may name on the gateway's own host: hosts
// with ports, and paths of sockets. It is set on the machine, by a flag and by a file beside the
// state, never by the policy alone: whoever may write the policy from afar would otherwise
// reach everything that trusts its own host.
package locals

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"vpnd/acl/language"
)

// ErrNotListed is the error of a target that nobody has listed.
var ErrNotListed = errors.New("is not among this host's local targets")

// ErrNever is the error of a target that cannot be listed.
var ErrNever = errors.New("is never published")

// List is what may be named.
type List struct {
	file string   // where what Add adds is kept
	own  []string // paths of the daemon's own sockets

	mu   sync.Mutex
	flag []string // sorted, each in its one spelling
	kept []string
}

// Open reads the list that Add has kept in file, beside those of the flag. own are the paths
// of the daemon's own sockets, which are never published.
func Open(file string, flag, own []string) (*List, error) {
	l := &List{file: file, own: own}
	for _, s := range flag {
		t, err := Parse(s)
		if err != nil {
			return nil, err
		}
		if err := l.never(t); err != nil {
			return nil, err
		}
		l.flag = append(l.flag, t)
	}
	text, err := os.ReadFile(file)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("reading the local targets: %w", err)
	}
	for line := range strings.Lines(string(text)) {
		if line = strings.TrimSpace(line); line == "" || line[0] == '#' {
			continue
		}
		t, err := Parse(line)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
		l.kept = append(l.kept, t)
	}
	return l, nil
}

// Parse gives a target's one spelling: "127.0.0.1:3000" for "localhost:3000", or a clean path.
func Parse(s string) (string, error) {
	s = strings.TrimPrefix(s, "unix:")
	if strings.HasPrefix(s, "/") {
		if filepath.Clean(s) != s || s == "/" || strings.ContainsFunc(s, func(c rune) bool { return c < 0x20 || c == 0x7f }) {
			return "", fmt.Errorf("%q is not the path of a socket: write it from the root, like /run/app/app.sock", language.Short(s))
		}
		return s, nil
	}
	host, port, err := net.SplitHostPort(s)
	n, perr := strconv.ParseUint(port, 10, 16)
	if err != nil || perr != nil || n == 0 || strconv.FormatUint(n, 10) != port {
		return "", fmt.Errorf("%q is no local target: write HOST:PORT like localhost:3000, or the path of a socket", language.Short(s))
	}
	if strings.EqualFold(host, "localhost") {
		host = "127.0.0.1"
	}
	a, err := netip.ParseAddr(host)
	if err != nil || a.Zone() != "" || a.Is4In6() || a.IsUnspecified() {
		return "", fmt.Errorf("%q is no local target: its host is localhost or one address of this host", language.Short(s))
	}
	return netip.AddrPortFrom(a, uint16(n)).String(), nil
}

// Add lists targets for good. They are in the file when it returns.
func (l *List) Add(targets []string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	kept := slices.Clone(l.kept)
	for _, s := range targets {
		t, err := Parse(s)
		if err != nil {
			return err
		}
		if err := l.never(t); err != nil {
			return err
		}
		if !slices.Contains(kept, t) && !slices.Contains(l.flag, t) {
			kept = append(kept, t)
		}
	}
	slices.Sort(kept)
	if slices.Equal(kept, l.kept) {
		return nil
	}
	text := "# What resources of the policy may name on this host, one a line.\n" + strings.Join(kept, "\n") + "\n"
	if err := write(l.file, text); err != nil {
		return fmt.Errorf("keeping the local targets: %w", err)
	}
	l.kept = kept
	return nil
}

// write replaces a file whole, so that a crash leaves the old one or the new one.
func write(file, text string) error {
	f, err := os.CreateTemp(filepath.Dir(file), ".local-targets-")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = f.WriteString(text)
	err = errors.Join(err, f.Chmod(0o600), f.Sync(), f.Close())
	if err != nil {
		return err
	}
	return os.Rename(f.Name(), file)
}

// Allow tells whether a resource may lead to a target: a socket's path, or an address and port.
// It is dataplane.Config's LocalTarget.
func (l *List) Allow(network string, target netip.AddrPort, path string) error {
	t := path
	if network != "unix" {
		t = netip.AddrPortFrom(target.Addr().Unmap(), target.Port()).String()
	}
	if err := l.never(t); err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if slices.Contains(l.flag, t) || slices.Contains(l.kept, t) {
		return nil
	}
	return fmt.Errorf("%s %w: as root on this host type vpnctl resource allow %s", t, ErrNotListed, t)
}

// Targets are the listed ones, sorted.
func (l *List) Targets() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	all := slices.Concat(l.flag, l.kept)
	slices.Sort(all)
	return slices.Compact(all)
}

// engines are sockets whose owner is as good as root.
var engines = []string{"docker.sock", "containerd.sock", "podman.sock", "crio.sock", "dockershim.sock", "cri-dockerd.sock"}

// never refuses the daemon's own sockets and those of container engines, by any path and link.
func (l *List) never(t string) error {
	if !strings.HasPrefix(t, "/") {
		return nil
	}
	names := []string{t}
	if at, err := filepath.EvalSymlinks(t); err == nil {
		names = append(names, at)
	}
	for _, n := range names {
		if slices.Contains(engines, filepath.Base(n)) {
			return fmt.Errorf("%s %w: whoever calls a container engine is root on this host", t, ErrNever)
		}
	}
	for _, own := range append(l.own, "/run/docker.sock", "/run/containerd/containerd.sock", "/run/podman/podman.sock", "/var/run/docker.sock") {
		if slices.Contains(names, own) || same(t, own) {
			return fmt.Errorf("%s %w: it is vpnd's own, or a container engine's", t, ErrNever)
		}
	}
	return nil
}

// same tells whether two paths lead to one file, by hard links too.
func same(a, b string) bool {
	var x, y unix.Stat_t
	return unix.Stat(a, &x) == nil && unix.Stat(b, &y) == nil && x.Dev == y.Dev && x.Ino == y.Ino
}

// Of are the local targets that a resource names by itself, in their one spelling: what is on
// this host by another name or address is found out when it is called.
func Of(r *language.Resource) []string {
	if r.To.Path != "" {
		return []string{r.To.Path}
	}
	if !r.To.Loopback() {
		return nil
	}
	a := r.To.Addr
	if !a.IsValid() {
		a = netip.AddrFrom4([4]byte{127, 0, 0, 1})
	}
	if r.ToPort != 0 {
		return []string{netip.AddrPortFrom(a, r.ToPort).String()}
	}
	var out []string
	for _, s := range r.Ports {
		for p := int(s.First); p <= int(s.Last) && len(out) < maxPorts; p++ {
			if t := netip.AddrPortFrom(a, uint16(p)).String(); !slices.Contains(out, t) {
				out = append(out, t)
			}
		}
	}
	return out
}

// maxPorts is the most ports of a resource on this host that are looked at one by one.
const maxPorts = 256
