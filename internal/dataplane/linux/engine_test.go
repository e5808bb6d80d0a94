package linux

import (
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"golang.zx2c4.com/wireguard/ipc"
)

// What a killed process leaves of its socket is removed by wg as well as by us: who comes second
// finds nothing, and that is no failure.
func TestUAPISocketThatWgRemovesMeanwhile(t *testing.T) {
	needNet(t)
	const name = "vpntest"
	path := "/var/run/wireguard/" + name + ".sock"
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	stale, err := net.ListenUnix("unix", &net.UnixAddr{Name: path})
	if err != nil {
		t.Fatal(err)
	}
	stale.SetUnlinkOnClose(false)
	stale.Close()

	// wg is faster each time that a step of ours needs the socket.
	opened, served := 0, 0
	open := func(name string) (*os.File, error) {
		if opened++; opened == 1 {
			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
			return nil, os.Remove(path) // as UAPIOpen does and says
		}
		return ipc.UAPIOpen(name)
	}
	serve := func(name string, f *os.File) (net.Listener, error) {
		if served++; served == 1 {
			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
		}
		return ipc.UAPIListen(name, f)
	}
	l, err := openUAPI(name, open, serve)
	if err != nil {
		t.Fatal(err)
	}
	if opened != 3 || served != 2 {
		t.Errorf("opened %d times and served %d times", opened, served)
	}
	c, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
	l.Close()

	for _, c := range []struct {
		err   error
		tries int
	}{{fs.ErrNotExist, uapiTries}, {syscall.EACCES, 1}} {
		tries := 0
		_, err := openUAPI(name, func(string) (*os.File, error) { tries++; return nil, c.err }, ipc.UAPIListen)
		if !errors.Is(err, c.err) || tries != c.tries {
			t.Errorf("with %v each time: %d tries, %v", c.err, tries, err)
		}
	}
}
