package local

import (
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestParseTarget(t *testing.T) {
	for s, want := range map[string]string{
		"127.0.0.1:3000": "127.0.0.1:3000", "localhost:5432": "127.0.0.1:5432", "LOCALHOST:1": "127.0.0.1:1",
		"192.0.2.2:80": "192.0.2.2:80", "[fd00::2]:80": "[fd00::2]:80", "[::ffff:127.0.0.1]:80": "127.0.0.1:80",
		"/run/app.sock": "/run/app.sock", "unix:/run/app.sock": "/run/app.sock",
		"::1:80": "", "[::1]:80": "let it listen on 127.0.0.1", "fd00::2:80": "", "[fd00::2]": "", "127.0.0.1": "",
		"0.0.0.0:80": "no address", "[::]:80": "no address", "224.0.0.1:80": "no address", "[fe80::1%eth0]:80": "no address",
		"127.0.0.1:0": "not a port", "127.0.0.1:65536": "not a port", "127.0.0.1:080": "not a port", "127.0.0.1:http": "not a port", "127.0.0.1:+80": "not a port",
		"nas.lan:80": "localhost", "app.sock": "", "unix:app.sock": "from the root", "/run/../app.sock": "from the root", "/": "from the root", "/run/app/": "from the root",
		":80": "", "": "", "*:80": "localhost",
	} {
		got, err := ParseTarget(s)
		if err == nil && got.String() != want || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, %v, want %q", s, got, err, want)
		}
		if err == nil {
			again, err := ParseTarget(got.String())
			if err != nil || again != got {
				t.Errorf("%q: %v read again is %v, %v", s, got, again, err)
			}
		}
	}
	list, err := ParseTargets(" localhost:80, /run/a.sock ,")
	if err != nil || len(list) != 2 {
		t.Errorf("%v, %v", list, err)
	}
	if _, err := ParseTargets("localhost:80,x,y"); err == nil || !strings.Contains(err.Error(), `"x"`) || !strings.Contains(err.Error(), `"y"`) {
		t.Errorf("%v", err)
	}
	if list, err := ParseTargets(""); len(list) != 0 || err != nil {
		t.Errorf("%v, %v", list, err)
	}
}

func TestFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "local-targets")
	if list, err := ReadFile(path); len(list) != 0 || err != nil {
		t.Fatal(list, err)
	}
	want := []Target{{Addr: netip.MustParseAddrPort("127.0.0.1:80")}, {Path: "/run/a b.sock"}}
	for range 2 {
		if err := WriteFile(path, want); err != nil {
			t.Fatal(err)
		}
		if got, err := ReadFile(path); err != nil || !slices.Equal(got, want) {
			t.Fatal(got, err)
		}
	}
	if info, err := os.Stat(path); err != nil || info.Mode() != 0o600 {
		t.Error(info.Mode(), err)
	}
	if files, _ := os.ReadDir(filepath.Dir(path)); len(files) != 1 {
		t.Error(files)
	}
	os.WriteFile(path, []byte("# x\n\nlocalhost:80\nnonsense\n"), 0o600)
	if _, err := ReadFile(path); err == nil || !strings.Contains(err.Error(), "line 4") {
		t.Error(err)
	}
	if err := WriteFile(filepath.Join(path, "x"), want); err == nil {
		t.Error("written below a file")
	}
}

// judge is pure: what was found is given.
func TestJudge(t *testing.T) {
	list := []allowed{
		{Target: Target{Path: "/run/app.sock"}, real: "/run/app.sock"},
		{Target: Target{Path: "/var/run/b.sock"}, real: "/run/b.sock"},
		{Target: Target{Addr: netip.MustParseAddrPort("127.0.0.1:80")}},
	}
	never := forbidden{
		paths: map[string]string{"/run/vpnd/control.sock": isOwn},
		files: map[fileID]string{{1, 7}: isOwn},
	}
	for _, test := range []struct {
		name, real string
		id         fileID
		want       string
	}{
		{"/run/app.sock", "/run/app.sock", fileID{1, 2}, ""},
		{"/srv/link", "/run/app.sock", fileID{1, 2}, ""},
		{"/var/run/b.sock", "/run/b.sock", fileID{1, 2}, ""},
		{"/run/b.sock", "/run/b.sock", fileID{1, 2}, ""},
		{"/run/app.sock", "/run/other.sock", fileID{1, 2}, "leads to /run/other.sock"},
		{"/run/other.sock", "/run/other.sock", fileID{1, 2}, "--local-targets /run/other.sock"},
		{"/run/app.sock (deleted)", "/run/app.sock (deleted)", fileID{1, 2}, "may not be"},
		{"/run/app.sock", "/run/app.sock", fileID{1, 7}, "vpnd's own socket, by another name"},
		{"/run/app.sock", "/run/vpnd/control.sock", fileID{1, 2}, "vpnd's own socket"},
		{"/run/vpnd/control.sock", "/run/vpnd/control.sock", fileID{}, "vpnd's own socket"},
		{"/run/app.sock", "/somewhere/docker.sock", fileID{1, 2}, "whole host"},
		{"/x/Containerd.sock", "/run/app.sock", fileID{1, 2}, "whole host"},
	} {
		err := judge(list, never, test.name, test.real, test.id)
		if (err == nil) != (test.want == "") || err != nil && !strings.Contains(err.Error(), test.want) {
			t.Errorf("%+v: %v", test, err)
		}
	}
}

func TestGuardedAddress(t *testing.T) {
	own := []netip.AddrPort{netip.MustParseAddrPort("0.0.0.0:8443")}
	list, err := ParseTargets("localhost:3000,127.0.0.1:8443,/run/a.sock")
	if err != nil {
		t.Fatal(err)
	}
	g := NewGuard(own, nil, list)
	if !slices.Equal(g.Allowed(), list) {
		t.Error(g.Allowed())
	}
	for to, want := range map[string]string{
		"127.0.0.1:3000": "", "[::ffff:127.0.0.1]:3000": "",
		"127.0.0.2:3000": "--local-targets 127.0.0.2:3000", "127.0.0.1:3001": "--local-targets 127.0.0.1:3001", "[::1]:3000": "may not be",
		"127.0.0.1:8443": "vpnd's own", "127.9.9.9:8443": "vpnd's own",
	} {
		err := g.Address(netip.MustParseAddrPort(to))
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", to, err, want)
		}
	}
	g.Allow(nil)
	if g.Address(netip.MustParseAddrPort("127.0.0.1:3000")) == nil {
		t.Error("what is allowed no more may be published")
	}
}
