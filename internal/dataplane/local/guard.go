package local

import (
	"net/netip"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
)

// Guard says what of this host may be published. What is allowed is set on the machine, and may
// change while it runs; what may never be is fixed. Its methods may be called concurrently.
type Guard struct {
	own     []netip.AddrPort // the process's listeners
	sockets []string         // and its sockets
	allowed atomic.Pointer[[]allowed]
}

// allowed is a target that may be published.
type allowed struct {
	Target
	// real is where the path led when it was allowed: whoever may change a link on the way
	// later does not choose another socket by that.
	real string
}

// NewGuard makes a Guard for a process with these listeners and sockets of its own.
func NewGuard(own []netip.AddrPort, sockets []string, list []Target) *Guard {
	g := &Guard{own: own, sockets: sockets}
	g.Allow(list)
	return g
}

// Allow makes list what may be published.
func (g *Guard) Allow(list []Target) {
	out := make([]allowed, len(list))
	for i, t := range list {
		out[i] = allowed{Target: t}
		if t.Path != "" {
			out[i].real = realPath(t.Path)
		}
	}
	g.allowed.Store(&out)
}

// Allowed is what may be published.
func (g *Guard) Allowed() []Target {
	var list []Target
	for _, a := range *g.allowed.Load() {
		list = append(list, a.Target)
	}
	return list
}

// Address tells whether a target on this host may be called at to.
func (g *Guard) Address(to netip.AddrPort) error {
	t := Target{Addr: netip.AddrPortFrom(to.Addr().Unmap(), to.Port())}
	if IsOwn(t.Addr, g.own) {
		return &NeverError{Target: t, Why: "it is vpnd's own"}
	}
	if !slices.ContainsFunc(*g.allowed.Load(), func(a allowed) bool { return a.Target == t }) {
		return &NotAllowedError{Target: t}
	}
	return nil
}

// mighty are sockets whose users have the whole host, by their names and by their places: a
// container engine starts what it is told to, as root.
var (
	mightyNames  = []string{"docker.sock", "containerd.sock", "podman.sock", "crio.sock", "buildkitd.sock"}
	mightyPlaces = []string{
		"/run/docker.sock", "/run/containerd/containerd.sock", "/run/k3s/containerd/containerd.sock",
		"/run/podman/podman.sock", "/run/crio/crio.sock", "/run/buildkit/buildkitd.sock",
		"/run/systemd/private", "/run/dbus/system_bus_socket",
	}
)

// fileID tells files apart whatever they are called.
type fileID struct{ dev, ino uint64 }

// forbidden are the sockets that may never be published, each with the reason.
type forbidden struct {
	paths map[string]string
	files map[fileID]string
}

const (
	isOwn    = "it is vpnd's own socket"
	isMighty = "whoever reaches it has the whole host"
)

// judge decides about a socket: path is how it was named, real where that led to, and id what
// was found there.
func judge(list []allowed, never forbidden, name, real string, id fileID) error {
	t := Target{Path: name}
	for _, p := range []string{name, real} {
		if why, ok := never.paths[p]; ok {
			return &NeverError{Target: t, Why: why}
		}
		if slices.Contains(mightyNames, strings.ToLower(path.Base(p))) {
			return &NeverError{Target: t, Why: isMighty}
		}
	}
	if why, ok := never.files[id]; ok {
		return &NeverError{Target: t, Why: why + ", by another name"}
	}
	for _, a := range list {
		if a.Path != "" && (a.Path == real || a.real == real) {
			return nil
		}
	}
	e := &NotAllowedError{Target: t}
	if real != name {
		e.Link = real
	}
	return e
}

// never are the forbidden sockets as they are at this moment.
func (g *Guard) never() forbidden {
	f := forbidden{paths: make(map[string]string), files: make(map[fileID]string)}
	add := func(list []string, why string) {
		for _, p := range list {
			f.paths[p], f.paths[realPath(p)] = why, why
			if id, err := identify(p); err == nil {
				f.files[id] = why
			}
		}
	}
	add(mightyPlaces, isMighty)
	add(g.sockets, isOwn)
	return f
}

// realPath follows the links of a path as far as it exists.
func realPath(p string) string {
	if real, err := filepath.EvalSymlinks(p); err == nil {
		return real
	}
	dir, base := filepath.Split(p)
	if dir = filepath.Clean(dir); dir == p {
		return p
	}
	return filepath.Join(realPath(dir), base)
}
