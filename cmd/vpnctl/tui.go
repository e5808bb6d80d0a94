package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"
	"unicode"

	"golang.org/x/term"
)

// The rules of what vpnctl says:
//
//   - What was asked for goes to standard output, and nothing else does: it can be piped.
//   - Everything else goes to standard error as "vpnctl: …": one line, no capital, no
//     full stop, the thing by name, then what to do. What vpnd says is passed on as it is.
//   - Questions are asked on the terminal itself; without one, --yes has to be there
//     already. The answer that does nothing is the default. A change of the policy, which
//     a pipeline makes from a reviewed file, is asked about only if standard input is a
//     terminal: everything of it can be taken back.
//   - Colour only repeats what the words say: on a terminal, unless NO_COLOR is set.
//   - Text that came from elsewhere cannot steer the terminal.
type ui struct {
	in       io.Reader
	out, err io.Writer
	tty      func() (io.ReadWriteCloser, error)
	now      func() time.Time
	inTTY    bool // somebody is there to answer
	outTTY   bool
	columns  int // of the terminal; 0: no terminal, or unknown
	colour   bool
	broken   error // why the output is not whole
}

func newUI(sys system) *ui {
	u := &ui{
		in: sys.stdin, out: sys.stdout, err: sys.stderr, tty: sys.tty, now: sys.now,
		inTTY: isTerminal(sys.stdin), outTTY: isTerminal(sys.stdout),
	}
	if f, ok := sys.stdout.(*os.File); ok && u.outTTY {
		u.columns, _, _ = term.GetSize(int(f.Fd()))
	}
	u.colour = u.outTTY && sys.getenv("NO_COLOR") == "" && sys.getenv("TERM") != "dumb"
	return u
}

func isTerminal(x any) bool {
	f, ok := x.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// printf writes a result. Its strings may come from anywhere: they are cleaned here.
func (u *ui) printf(format string, args ...any) {
	for i, arg := range args {
		if s, ok := arg.(string); ok {
			args[i] = clean(s)
		}
	}
	u.write(fmt.Sprintf(format, args...))
}

// write writes what has been cleaned, or is our own.
func (u *ui) write(s string) {
	if _, err := io.WriteString(u.out, s); err != nil && u.broken == nil {
		u.broken = fmt.Errorf("write the output: %w", err)
	}
}

// notef writes a remark beside the result.
func (u *ui) notef(format string, args ...any) {
	fmt.Fprintf(u.err, "vpnctl: %s\n", clean(fmt.Sprintf(format, args...)))
}

// fail reports err and returns its exit code.
func (u *ui) fail(err error) int {
	u.notef("%s", strings.ReplaceAll(err.Error(), "\n", "; "))
	return exitCode(err)
}

func exitCode(err error) int {
	var e *exitError
	if errors.As(err, &e) {
		return e.code
	}
	return exitFailed
}

// confirm asks before something that cannot be taken back.
func (u *ui) confirm(ctx context.Context, yes bool, question string) error {
	if yes {
		return nil
	}
	tty, err := u.tty()
	if err != nil {
		return usagef("there is no terminal to ask %q on: say --yes", clean(question))
	}
	defer tty.Close()
	fmt.Fprintf(tty, "%s [y/N] ", clean(question))
	answer := make(chan string, 1)
	go func() {
		line, _ := bufio.NewReader(tty).ReadString('\n') // cut short: no answer
		answer <- line
	}()
	var line string
	select {
	case line = <-answer:
	case <-ctx.Done(): // by Ctrl-C
	}
	if !strings.HasSuffix(line, "\n") {
		fmt.Fprintln(tty)
	}
	switch strings.ToLower(strings.TrimSpace(line)) {
	case "y", "yes":
		return nil
	}
	return errors.New("nothing was done")
}

// Colours, by what they say.
const (
	plain = ""
	good  = "32" // green
	warn  = "33" // yellow
	bad   = "31" // red
	faint = "2"
	bold  = "1"
)

// paint colours a cleaned text.
func (u *ui) paint(style, s string) string {
	if !u.colour || style == plain || s == "" {
		return s
	}
	return "\x1b[" + style + "m" + s + "\x1b[0m"
}

// clean takes out of s what could steer a terminal or turn its text around: control
// characters, and the format characters that Unicode's bidirectional algorithm obeys.
func clean(s string) string { return strip(s, "") }

// cleanText is clean for a text of several lines.
func cleanText(s string) string { return strip(s, "\n\t") }

func strip(s, keep string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case strings.ContainsRune(keep, r):
			return r
		case steers(r):
			return -1
		}
		return r
	}, s)
}

func steers(r rune) bool {
	return unicode.IsControl(r) || unicode.Is(unicode.Bidi_Control, r) || r == '\u2028' || r == '\u2029' || r == unicode.ReplacementChar
}
