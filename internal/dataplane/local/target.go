package local

import (
	"errors"
	"fmt"
	"net/netip"
	"path"
	"strconv"
	"strings"
)

// Target is what may be published on this host: an address with its port, or the path of a
// unix socket.
type Target struct {
	Addr netip.AddrPort
	Path string
}

func (t Target) String() string {
	if t.Path != "" {
		return t.Path
	}
	return t.Addr.String()
}

// ParseTarget reads HOST:PORT or /PATH. HOST is an address, or localhost, which is 127.0.0.1.
func ParseTarget(s string) (Target, error) {
	if p, ok := strings.CutPrefix(s, "unix:"); ok || strings.HasPrefix(s, "/") {
		if !path.IsAbs(p) || path.Clean(p) != p || p == "/" || strings.ContainsAny(p, "\x00\n,") {
			return Target{}, fmt.Errorf("%q is not the path of a socket: write it from the root, like /run/app/app.sock", p)
		}
		return Target{Path: p}, nil
	}
	host, port, ok := cutPort(s)
	if !ok {
		return Target{}, fmt.Errorf("%q is neither HOST:PORT nor a socket's path: write one like 127.0.0.1:3000 or /run/app/app.sock", s)
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil || n == 0 || strconv.Itoa(int(n)) != port {
		return Target{}, fmt.Errorf("%q: %q is not a port: write a number from 1 to 65535", s, port)
	}
	if strings.EqualFold(host, "localhost") {
		host = "127.0.0.1"
	}
	a, err := netip.ParseAddr(host)
	switch {
	case err != nil:
		return Target{}, fmt.Errorf("%q: a host is an address of this host, or localhost: names for others say where they are, not what may be published", s)
	case a.Unmap().Is6() && a.IsLoopback():
		return Target{}, fmt.Errorf("%q: what listens on ::1 alone cannot be told who calls: let it listen on 127.0.0.1, and write that", s)
	case a.IsUnspecified() || a.Zone() != "" || a.IsMulticast() || a.IsLinkLocalUnicast():
		return Target{}, fmt.Errorf("%q: %v is no address that one service has: write 127.0.0.1, or another address of this host", s, a)
	}
	return Target{Addr: netip.AddrPortFrom(a.Unmap(), uint16(n))}, nil
}

func cutPort(s string) (host, port string, ok bool) {
	i := strings.LastIndexByte(s, ':')
	if i <= 0 {
		return "", "", false
	}
	host, port = s[:i], s[i+1:]
	if h, ok := strings.CutPrefix(host, "["); ok {
		h, ok = strings.CutSuffix(h, "]")
		return h, port, ok
	}
	return host, port, !strings.Contains(host, ":")
}

// ParseTargets reads a list of targets, parted by commas. Nothing is a list of none.
func ParseTargets(s string) ([]Target, error) {
	var list []Target
	var errs []error
	for part := range strings.SplitSeq(s, ",") {
		if part = strings.TrimSpace(part); part == "" {
			continue
		}
		t, err := ParseTarget(part)
		if err != nil {
			errs = append(errs, err)
		}
		list = append(list, t)
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return list, nil
}

// NotAllowedError refuses what nobody has allowed on this host.
type NotAllowedError struct {
	Target Target
	Link   string // where the path that was asked for led to another one: that one
}

func (e *NotAllowedError) Error() string {
	if e.Link != "" {
		return fmt.Sprintf("%v leads to %s, and that may not be published on this host: whoever runs it allows it by --local-targets %s", e.Target, e.Link, e.Link)
	}
	return fmt.Sprintf("%v may not be published on this host: whoever runs it allows it by --local-targets %v", e.Target, e.Target)
}

// NeverError refuses what may not be published whatever is allowed.
type NeverError struct {
	Target Target
	Why    string
}

func (e *NeverError) Error() string { return fmt.Sprintf("%v is never published: %s", e.Target, e.Why) }
