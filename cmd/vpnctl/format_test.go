package main

import (
	"bytes"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"
)

func TestLength(t *testing.T) {
	for _, c := range []struct {
		d    time.Duration
		want string
	}{
		{0, "0 s"},
		{59*time.Second + 900*time.Millisecond, "59 s"},
		{time.Minute, "1 min"},
		{9*time.Minute + 59*time.Second, "9 min 59 s"},
		{10*time.Minute + 59*time.Second, "10 min"},
		{time.Hour, "1 h"},
		{9*time.Hour + 5*time.Minute, "9 h 5 min"},
		{47*time.Hour + 59*time.Minute, "47 h"},
		{48 * time.Hour, "2 days"},
		{-90 * time.Second, "1 min 30 s"},
	} {
		if got := length(c.d); got != c.want {
			t.Errorf("length(%v) = %q, want %q", c.d, got, c.want)
		}
	}
}

func TestRelative(t *testing.T) {
	now := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	u := &ui{now: func() time.Time { return now }}
	for _, c := range []struct {
		at   time.Duration
		want string
	}{
		{0, "now"},
		{12*time.Hour - 300*time.Millisecond, "in 12 h"}, // just made, on the way here
		{-3 * time.Minute, "3 min ago"},
		{72 * time.Hour, "in 3 days"},
	} {
		if got := u.relative(now.Add(c.at)); got != c.want {
			t.Errorf("%v: %q, want %q", c.at, got, c.want)
		}
	}
	if got := u.when(nil); got != "" {
		t.Errorf("when(nil) = %q", got)
	}
	if got := u.when(timestamppb.New(now.Add(time.Hour))); !strings.HasSuffix(got, "(in 1 h)") {
		t.Errorf("when = %q", got)
	}
}

func TestSize(t *testing.T) {
	for n, want := range map[int64]string{0: "0 B", 1023: "1023 B", 1024: "1.00 KiB", 1536: "1.50 KiB", 5 << 30: "5.00 GiB", 3 << 50: "3.00 PiB"} {
		if got := size(n); got != want {
			t.Errorf("size(%d) = %q, want %q", n, got, want)
		}
	}
}

func TestTableAligns(t *testing.T) {
	var out bytes.Buffer
	u := &ui{out: &out, colour: true}
	tab := newTable("A", "B", "")
	tab.add(cell{"é\x1b[2J", bad}, text("x"), cell{})
	tab.add(text("long"), text("y"), text("z"))
	tab.draw(u)
	want := "\x1b[2mA\x1b[0m     \x1b[2mB\x1b[0m\n\x1b[31mé[2J\x1b[0m  x\nlong  y  z\n"
	if out.String() != want {
		t.Errorf("got\n%q, want\n%q", out.String(), want)
	}
}

func TestWithPrivateKey(t *testing.T) {
	const config = "[Interface]\nAddress = 10.77.0.2/32\n\n[Peer]\n"
	got, err := withPrivateKey(config, "KEY")
	if err != nil || got != "[Interface]\nPrivateKey = KEY\nAddress = 10.77.0.2/32\n\n[Peer]\n" {
		t.Errorf("%q, %v", got, err)
	}
	for _, bad := range []string{"", "[Peer]\n", config + config} {
		if _, err := withPrivateKey(bad, "KEY"); err == nil {
			t.Errorf("%q was taken", bad)
		}
	}
}

func TestSocketPath(t *testing.T) {
	env := func(pairs ...string) func(string) string {
		return func(k string) string {
			for i := 0; i < len(pairs); i += 2 {
				if pairs[i] == k {
					return pairs[i+1]
				}
			}
			return ""
		}
	}
	for _, c := range []struct {
		flag string
		uid  int
		env  func(string) string
		want string
	}{
		{"/x", 0, env(), "/x"},
		{"", 0, env("VPNCTL_SOCKET", "/e"), "/e"},
		{"/x", 0, env("VPNCTL_SOCKET", "/e"), "/x"},
		{"", 0, env("HOME", "/root", "XDG_STATE_HOME", "/s"), "/run/vpnd/control.sock"},
		{"", 1000, env("HOME", "/home/a", "XDG_STATE_HOME", "/s"), "/s/vpnd/control.sock"},
		{"", 1000, env("HOME", "/home/a"), "/home/a/.local/state/vpnd/control.sock"},
		{"", 1000, env("HOME", "/home/a", "XDG_STATE_HOME", "relative"), "/home/a/.local/state/vpnd/control.sock"},
	} {
		if got := socketPath(c.flag, system{uid: c.uid, getenv: c.env}); got != c.want {
			t.Errorf("socketPath(%q, uid %d) = %q, want %q", c.flag, c.uid, got, c.want)
		}
	}
}

func TestParseDuration(t *testing.T) {
	for in, want := range map[string]time.Duration{
		"7d": 7 * 24 * time.Hour, "1d12h": 36 * time.Hour, "90s": 90 * time.Second, "0d": 0, "-5s": -5 * time.Second,
		"d": -1, "": -1, "7": -1, "7 d": -1, "1d-1h": -1, "999999d": -1, "7d7d": -1,
	} {
		got, err := parseDuration(in)
		if (err != nil) != (want == -1) || err == nil && got != want {
			t.Errorf("%q: %v, %v; want %v", in, got, err, want)
		}
	}
}

// A daemon that takes the connection and says nothing is named, soon.
func TestSilentDaemon(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close() // nobody accepts: the kernel does
	var out, errs strings.Builder
	begun := time.Now()
	code := run(t.Context(), testSystem(&out, &errs, []string{"status"}, map[string]string{"VPNCTL_SOCKET": path}))
	if code != exitUnreachable || !strings.Contains(errs.String(), path+" takes the connection and says nothing") {
		t.Errorf("exit code %d: %s", code, errs.String())
	}
	if d := time.Since(begun); d > 10*time.Second {
		t.Errorf("it took %v", d)
	}
}
