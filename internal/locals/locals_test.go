package locals

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"vpnd/acl/language"
)

func TestParse(t *testing.T) {
	for s, want := range map[string]string{
		"localhost:3000": "127.0.0.1:3000", "LOCALHOST:1": "127.0.0.1:1", "127.0.0.1:3000": "127.0.0.1:3000", "192.0.2.1:80": "192.0.2.1:80",
		"[2001:db8::1]:80": "[2001:db8::1]:80", "/run/a.sock": "/run/a.sock", "unix:/run/a.sock": "/run/a.sock",
		"localhost": "", "localhost:0": "", "localhost:080": "", "nas.lan:80": "", "0.0.0.0:80": "", "[::ffff:127.0.0.1]:80": "", "run/a.sock": "", "/run/../a": "", "/": "", "/a\nb": "", "": "",
	} {
		got, err := Parse(s)
		if got != want || (err == nil) != (want != "") {
			t.Errorf("%q is %q, %v", s, got, err)
		}
	}
}

func TestList(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "local-targets")
	l, err := Open(file, []string{"localhost:80"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	at := func(s string) netip.AddrPort { return netip.MustParseAddrPort(s) }
	if err := l.Allow("tcp", at("127.0.0.1:80"), ""); err != nil {
		t.Error(err)
	}
	for _, no := range []string{"127.0.0.1:81", "127.0.0.2:80", "192.0.2.1:80"} {
		if err := l.Allow("tcp", at(no), ""); !errors.Is(err, ErrNotListed) || !strings.Contains(err.Error(), "vpnctl resource allow "+no) {
			t.Errorf("%s: %v", no, err)
		}
	}
	if err := l.Add([]string{"localhost:3000", "unix:/run/app.sock", "localhost:80"}); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(file); err != nil || info.Mode() != 0o600 {
		t.Errorf("the file is %v, %v", info, err)
	}
	if l, err = Open(file, nil, nil); err != nil {
		t.Fatal(err)
	}
	if got := l.Targets(); !slices.Equal(got, []string{"/run/app.sock", "127.0.0.1:3000"}) {
		t.Errorf("kept are %v", got)
	}
	if err := l.Allow("unix", netip.AddrPort{}, "/run/app.sock"); err != nil {
		t.Error(err)
	}
	if err := l.Allow("tcp", at("[::ffff:127.0.0.1]:3000"), ""); err != nil {
		t.Errorf("the same, mapped: %v", err)
	}
}

// What makes whoever calls it root is never published, by whatever name.
func TestNever(t *testing.T) {
	dir := t.TempDir()
	own := filepath.Join(dir, "control.sock")
	c, err := net.Listen("unix", own)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	docker := filepath.Join(dir, "docker.sock")
	d, err := net.Listen("unix", docker)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	soft, hard, engine := filepath.Join(dir, "soft"), filepath.Join(dir, "hard"), filepath.Join(dir, "engine")
	for _, err := range []error{os.Symlink(own, soft), os.Link(own, hard), os.Symlink(docker, engine)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	l, err := Open(filepath.Join(dir, "list"), nil, []string{own})
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{own, soft, hard, docker, engine, "/run/docker.sock", "/run/containerd/containerd.sock"} {
		if err := l.Add([]string{path}); !errors.Is(err, ErrNever) {
			t.Errorf("%s can be listed: %v", path, err)
		}
		if err := l.Allow("unix", netip.AddrPort{}, path); !errors.Is(err, ErrNever) {
			t.Errorf("%s: %v", path, err)
		}
	}
	if _, err := Open(filepath.Join(dir, "list"), []string{own}, []string{own}); !errors.Is(err, ErrNever) {
		t.Errorf("by the flag: %v", err)
	}
}

func TestOf(t *testing.T) {
	p, err := language.Parse([]byte(`{"resources": {
		"a": {"to": "http://localhost:3000"}, "b": {"to": "127.0.0.2", "ports": ["tcp:1-2", "udp:2"]}, "c": {"to": "unix:/run/c.sock", "port": 1}, "d": {"to": "10.1.2.3:4"}, "e": {"to": "nas.lan:5"}}}`))
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string][]string{"a": {"127.0.0.1:3000"}, "b": {"127.0.0.2:1", "127.0.0.2:2"}, "c": {"/run/c.sock"}, "d": nil, "e": nil} {
		if got := Of(p.Resource(name)); !slices.Equal(got, want) {
			t.Errorf("%s names %v", name, got)
		}
	}
}
