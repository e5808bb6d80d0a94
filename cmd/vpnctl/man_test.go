package main

import (
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"
	"testing"
)

func TestManualPage(t *testing.T) {
	var c cli
	parser, err := newParser(&c, system{stdout: io.Discard, stderr: io.Discard})
	if err != nil {
		t.Fatal(err)
	}
	var m man
	m.page(parser.Model)
	page := m.String()

	for _, n := range parser.Model.Leaves(true) {
		if !strings.Contains(page, "\n.SS "+roff(strings.TrimPrefix(path(n), "vpnctl "))+"\n") {
			t.Errorf("%s is not in the page", path(n))
		}
		for _, f := range n.Flags {
			if !strings.Contains(page, `\fB`+roff("--"+f.Name)+`\fR`) {
				t.Errorf("%s --%s is not in the page", path(n), f.Name)
			}
		}
	}
	for _, e := range exitCodes {
		if !strings.Contains(page, fmt.Sprintf("\n.B %d\n", e.code)) {
			t.Errorf("exit code %d is not in the page", e.code)
		}
	}

	// What begins with a dot is a macro of man(7); what begins with a quote is a request.
	macros := []string{".TH", ".SH", ".SS", ".TP", ".PP", ".B", ".I", ".BR"}
	escape := regexp.MustCompile(`\\(e|-|&|f[BIR]|\((aq|ga|ha|ti))`)
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

func TestRoff(t *testing.T) {
	for in, want := range map[string]string{
		"--a'b": `\-\-a\(aqb`, `a\b`: `a\eb`, "~/x": `\(ti/x`, "CIDR,…": "CIDR,...",
	} {
		if got := roff(in); got != want {
			t.Errorf("roff(%q) = %q, want %q", in, got, want)
		}
	}
	var m man
	m.text(".TH is no macro here")
	if got := m.String(); got != "\\&.TH is no macro here\n" {
		t.Errorf("%q", got)
	}
}
