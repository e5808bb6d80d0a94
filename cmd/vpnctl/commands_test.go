package main

import (
	"errors"
	"fmt"
	"image"
	"image/color"
	"image/png"
	"os"
	"os/exec"
	"strconv"
	"strings"

	"github.com/rogpeppe/go-internal/testscript"
)

// inWorld makes a method of world a script command that must not fail.
func inWorld(f func(*world, *testscript.TestScript, []string) error) func(*testscript.TestScript, bool, []string) {
	return func(ts *testscript.TestScript, neg bool, args []string) {
		err := f(ts.Value(worldKey{}).(*world), ts, args)
		if neg || err != nil {
			ts.Fatalf("%v: %v", args, err)
		}
	}
}

// exits CODE COMMAND ARG… runs a command that must end with this code.
func exits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits CODE COMMAND ARG…")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	got := 0
	var exit *exec.ExitError
	if err := ts.Exec(args[1], args[2:]...); errors.As(err, &exit) {
		got = exit.ExitCode()
	} else if err != nil {
		ts.Fatalf("run %s: %v", args[1], err)
	}
	if got != want {
		ts.Fatalf("exit code %d, want %d", got, want)
	}
}

// qr FILE: the terminal's QR code in FILE, read by zbarimg, goes to the file "scanned".
func qr(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: qr FILE")
	}
	text, err := scan(ts.ReadFile(args[0]), ts.MkAbs("qr.png"))
	ts.Check(err)
	ts.Check(os.WriteFile(ts.MkAbs("scanned"), text, 0o600))
}

// scan reads the QR code in a terminal's text: it paints it into the file picture for
// zbarimg.
func scan(terminal, picture string) ([]byte, error) {
	const scale = 4 // pixels to a module
	var rows [][]bool
	for line := range strings.Lines(terminal) {
		if !strings.ContainsAny(line, "█▀▄") {
			continue
		}
		line = strings.NewReplacer(qrOn, "", qrOff, "", "\n", "").Replace(line)
		var upper, lower []bool
		for _, r := range line {
			upper = append(upper, r == '█' || r == '▀')
			lower = append(lower, r == '█' || r == '▄')
		}
		rows = append(rows, upper, lower)
	}
	if len(rows) == 0 {
		return nil, errors.New("no QR code")
	}
	img := image.NewGray(image.Rect(0, 0, len(rows[0])*scale, len(rows)*scale))
	for y := range len(rows) * scale {
		for x := range len(rows[0]) * scale {
			if row := rows[y/scale]; x/scale < len(row) && row[x/scale] {
				img.SetGray(x, y, color.Gray{255})
			}
		}
	}
	f, err := os.Create(picture)
	if err != nil {
		return nil, err
	}
	if err := errors.Join(png.Encode(f, img), f.Close()); err != nil {
		return nil, err
	}
	out, err := exec.Command("zbarimg", "--quiet", "--raw", "-Sbinary", picture).Output()
	if err != nil {
		return nil, fmt.Errorf("zbarimg (Debian's zbar-tools) reads no code: %w", err)
	}
	return out, nil
}

// same FILE FILE compares bytes. A script's own files have no carriage returns to lose.
func same(ts *testscript.TestScript, neg bool, args []string) {
	if equal := ts.ReadFile(args[0]) == ts.ReadFile(args[1]); equal == neg {
		ts.Fatalf("%s and %s: equal is %v", args[0], args[1], equal)
	}
}

// wg FILE: wg-quick strips the file to what wg setconf takes.
func wgSetconf(ts *testscript.TestScript, neg bool, args []string) {
	command := []string{"wg-quick", "strip", ts.MkAbs(args[0])}
	if os.Geteuid() != 0 { // it wants to be root, if only to print
		command = append([]string{"unshare", "--map-root-user", "--"}, command...)
	}
	out, err := exec.Command(command[0], command[1:]...).CombinedOutput()
	if (err != nil) != neg {
		ts.Fatalf("wg-quick strip: %v: %s", err, out)
	}
}
