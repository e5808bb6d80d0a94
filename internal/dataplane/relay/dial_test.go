package relay

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"

	"vpnd/internal/dataplane/local"
)

// From where a target is called, and whether at all.
func TestSource(t *testing.T) {
	four, six := hostAddrs(t)
	published := func(network string, to netip.AddrPort) error {
		if to.Port() != 80 || network != "tcp" {
			return os.ErrPermission
		}
		return nil
	}
	gateway := []netip.Addr{netip.MustParseAddr("10.77.0.1"), netip.MustParseAddr("fd77::1")}
	for _, test := range []struct {
		network, to string
		from        []netip.Addr
		want        string // "" as routing chooses; else the source or part of the error
	}{
		{"tcp", "127.0.0.1:80", nil, "127.77.0.2"},
		{"tcp", "127.0.0.53:80", nil, "127.77.0.2"},
		{"tcp", "[::ffff:127.0.0.1]:80", nil, "127.77.0.2"},
		{"tcp", "127.0.0.1:80", gateway, "10.77.0.1"},
		{"tcp", "127.0.0.1:80", gateway[1:], "127.77.0.2"},
		{"tcp", "127.0.0.1:80", []netip.Addr{netip.MustParseAddr("127.0.0.1")}, "127.77.0.2"},
		{"tcp", "127.0.0.1:81", nil, "permission"},
		{"udp", "127.0.0.1:80", nil, "permission"},
		{"tcp", "[::1]:80", nil, "let it listen on 127.0.0.1"},
		{"tcp", "[::1]:80", gateway, "let it listen on 127.0.0.1"},
		{"tcp", "0.0.0.0:80", nil, "never dialled"},
		{"tcp", "169.254.169.254:80", nil, "never dialled"},
		{"tcp", "[64:ff9b::7f00:1]:80", nil, "never dialled"},
		{"tcp", "203.0.113.9:22", nil, ""},
		{"udp", "203.0.113.9:22", gateway, ""},
		{"tcp", four + ":80", nil, "127.77.0.2"},
		{"tcp", four + ":80", gateway, "10.77.0.1"},
		{"tcp", four + ":22", nil, "permission"},
		{"tcp", "[" + six + "]:80", nil, "stand for a device"},
		{"tcp", "[" + six + "]:80", gateway, "fd77::1"},
	} {
		if strings.HasPrefix(test.to, ":") || strings.HasPrefix(test.to, "[]") {
			continue // this host has no such address
		}
		called := false
		r := New(Options{Local: published, dial: func(_ context.Context, _ string, from netip.Addr, _ netip.AddrPort) (net.Conn, error) {
			called = true
			got := ""
			if from.IsValid() {
				got = from.String()
			}
			if got != test.want {
				t.Errorf("%s %s from %v: called from %q, want %q", test.network, test.to, test.from, got, test.want)
			}
			return newFake(), nil
		}})
		_, err := r.dialTarget(t.Context(), test.network, caller, Target{Addrs: []netip.AddrPort{netip.MustParseAddrPort(test.to)}, From: test.from})
		if err == nil != called || err != nil && (test.want == "" || !strings.Contains(err.Error(), test.want)) {
			t.Errorf("%s %s from %v: %v, want %q", test.network, test.to, test.from, err, test.want)
		}
	}
	r := New(Options{})
	for _, target := range []Target{{Addrs: []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:80")}}, {Path: "/run/x.sock"}} {
		if _, err := r.dialTarget(t.Context(), "tcp", caller, target); err == nil {
			t.Errorf("%v is called though nothing on this host is published", target)
		}
	}
	elsewhere := errors.New("a listener of ours")
	r = New(Options{Elsewhere: func(netip.AddrPort) error { return elsewhere }})
	if _, err := r.dialTarget(t.Context(), "tcp", caller, Target{Addrs: []netip.AddrPort{netip.MustParseAddrPort("203.0.113.9:22")}}); !errors.Is(err, elsewhere) {
		t.Errorf("%v", err)
	}
}

// hostAddrs are an IPv4 and an IPv6 address of this host that are not loopback; "" if none.
func hostAddrs(t *testing.T) (four, six string) {
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range addrs {
		a, _ := netip.AddrFromSlice(i.(*net.IPNet).IP)
		if a = a.Unmap(); a.IsLoopback() || local.Dialable(a, nil) != nil {
			continue
		}
		if a.Is4() {
			four = a.String()
		} else {
			six = a.String()
		}
	}
	return four, six
}

// The service sees the device's stand-in.
func TestServiceSeesStandin(t *testing.T) {
	r := newRelay(t, anyLocal())
	l := listen(t, "tcp4", "127.0.0.1:0")
	call(t, r, caller, Target{Addrs: []netip.AddrPort{portOf(l.Addr())}})
	if got := portOf(accept(t, l).RemoteAddr()).Addr().String(); got != "127.77.0.2" {
		t.Errorf("it sees %s", got)
	}
}
