package manpage

import "testing"

func TestRoff(t *testing.T) {
	for in, want := range map[string]string{
		"--a'b": `\-\-a\(aqb`, `a\b`: `a\eb`, "~/x": `\(ti/x`, "CIDR,…": "CIDR,...",
	} {
		if got := roff(in); got != want {
			t.Errorf("roff(%q) = %q, want %q", in, got, want)
		}
	}
	for in, want := range map[string]string{
		".TH is no macro here": "\\&.TH is no macro here\n",
		"'quoted":              "\\&\\(aqquoted\n",
		"one\n\ntwo":           "one\n.PP\ntwo\n",
	} {
		var w writer
		w.text(in)
		if got := w.String(); got != want {
			t.Errorf("text(%q) = %q, want %q", in, got, want)
		}
	}
}
