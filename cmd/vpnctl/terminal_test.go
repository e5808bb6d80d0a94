package main

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf8"

	"vpnd/peers/conf"
)

func TestFitQR(t *testing.T) {
	want := strings.Repeat("x", 300)
	code, err := conf.QRTerminal(want)
	if err != nil {
		t.Fatal(err)
	}
	first, _, _ := strings.Cut(code, "\n")
	width := utf8.RuneCountInString(strings.TrimSuffix(strings.TrimPrefix(first, qrOn), qrOff))
	if !strings.HasPrefix(first, qrOn) || !strings.HasSuffix(first, qrOff) || width < 50 {
		t.Fatalf("conf.QRTerminal draws otherwise than this knows: %q", first)
	}
	for _, c := range []struct{ columns, width, missing int }{
		{width, width, 0}, {width - 1, width - 4, 0}, {width - 4, width - 4, 0}, {width - 5, 0, 1}, {10, 0, width - 14},
	} {
		got, missing := fitQR(code, c.columns)
		if missing == 0 {
			if text, err := scan(got, filepath.Join(t.TempDir(), "qr.png")); err != nil || string(text) != want {
				t.Errorf("%d columns: scanned %q, %v", c.columns, text, err)
			}
		}
		if missing != c.missing {
			t.Errorf("%d columns: %d missing, want %d", c.columns, missing, c.missing)
		}
		for l := range strings.Lines(got) {
			l = strings.TrimSuffix(strings.TrimPrefix(strings.TrimSuffix(l, "\n"), qrOn), qrOff)
			if n := utf8.RuneCountInString(l); n != c.width {
				t.Errorf("%d columns: a line of %d, want %d", c.columns, n, c.width)
				break
			}
		}
	}
}

// A private key must not be lost because a terminal is narrow.
func TestNarrowTerminalGetsTheConfigAsText(t *testing.T) {
	var out, errOut bytes.Buffer
	a := &app{ui: &ui{out: &out, err: &errOut, outTTY: true, columns: 40}}
	k := &pending{flags: keyFlags{QR: true}, private: "KEY"}
	if _, err := k.deliver(a, "[Interface]\nAddress = 10.77.0.2/32\n"+strings.Repeat("#", 300)+"\n"); err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(out.String(), "[Interface]\nPrivateKey = KEY\n") {
		t.Errorf("standard output: %q", out.String())
	}
	if !strings.Contains(errOut.String(), "columns") {
		t.Errorf("standard error: %q", errOut.String())
	}
}

func TestColour(t *testing.T) {
	terminal, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0) // a pseudo-terminal's master is a terminal
	if err != nil {
		t.Fatal(err)
	}
	defer terminal.Close()
	for _, c := range []struct {
		stdout io.Writer
		env    map[string]string
		want   bool
	}{
		{terminal, nil, true},
		{terminal, map[string]string{"NO_COLOR": "1"}, false},
		{terminal, map[string]string{"NO_COLOR": ""}, true},
		{terminal, map[string]string{"TERM": "dumb"}, false},
		{&bytes.Buffer{}, nil, false},
	} {
		if got := newUI(testSystem(c.stdout, io.Discard, nil, c.env)).colour; got != c.want {
			t.Errorf("%T with %v: colour is %v", c.stdout, c.env, got)
		}
	}
}
