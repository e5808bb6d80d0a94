// Package manpagetest checks manual pages in tests of the programs that they are about.
package manpagetest

import (
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/alecthomas/kong"
)

// What begins with a dot is a macro of man(7), with a quote a request of roff(7).
var (
	macros = []string{".TH", ".SH", ".SS", ".TP", ".PP", ".B", ".I", ".BR"}
	escape = regexp.MustCompile(`\\(e|-|&|f[BIR]|\((aq|ga|ha|ti))`)
)

// Check finds what man(1) would take otherwise than it is meant.
func Check(t *testing.T, page string) {
	t.Helper()
	for line := range strings.Lines(page) {
		word, _, _ := strings.Cut(strings.TrimSpace(line), " ")
		if strings.HasPrefix(line, ".") && !slices.Contains(macros, word) || strings.HasPrefix(line, "'") {
			t.Errorf("not a macro: %q", line)
		}
		if rest := escape.ReplaceAllString(line, ""); strings.Contains(rest, `\`) {
			t.Errorf("unknown escape: %q", line)
		}
		for _, r := range line {
			if r > '~' {
				t.Errorf("not ASCII: %q", line)
			}
		}
		if strings.Count(line, `\fB`)+strings.Count(line, `\fI`) != strings.Count(line, `\fR`) {
			t.Errorf("a font is not ended: %q", line)
		}
	}
}

// Complete finds flags and commands that the page does not have.
func Complete(t *testing.T, page string, model *kong.Application) {
	t.Helper()
	flags := func(of string, list []*kong.Flag) {
		for _, f := range list {
			if !f.Hidden && !strings.Contains(page, `\fB`+strings.ReplaceAll("--"+f.Name, "-", `\-`)+`\fR`) {
				t.Errorf("%s --%s is not in the page", of, f.Name)
			}
		}
	}
	flags(model.Name, model.Flags)
	for _, n := range model.Leaves(true) {
		name := strings.TrimPrefix(n.Path(), model.Name+" ")
		if n != model.Node && !strings.Contains(page, "\n.SS "+strings.ReplaceAll(strings.Join(strings.Fields(commands(n)), " "), "-", `\-`)+"\n") {
			t.Errorf("%s is not in the page", name)
		}
		flags(name, n.Flags)
	}
}

// commands is a command's path without the program's name.
func commands(n *kong.Node) string {
	if n.Parent == nil {
		return ""
	}
	return commands(n.Parent) + " " + n.Name
}
