package main

import (
	"io"
	"strings"
	"testing"

	"vpnd/internal/manpage/manpagetest"
)

func TestManualPages(t *testing.T) {
	for flag, title := range map[string]string{"--man": ".TH VPND 8 ", "--man-toml": ".TH VPND.TOML 5 "} {
		var out strings.Builder
		if code := Main(t.Context(), []string{flag}, &out); code != 0 {
			t.Fatalf("vpnd %s: exit code %d", flag, code)
		}
		if !strings.HasPrefix(out.String(), title) {
			t.Errorf("vpnd %s begins with %.40q", flag, out.String())
		}
		manpagetest.Check(t, out.String())
	}
	k, err := newParser(&Flags{}, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	manpagetest.Complete(t, manual(k.Model), k.Model)
	toml := tomlManual(k.Model)
	for _, f := range k.Model.Flags {
		if settable(f) && !strings.Contains(toml, "\n.B "+strings.ReplaceAll(f.Name, "-", `\-`)+" = ") {
			t.Errorf("%s is not in vpnd.toml(5)", f.Name)
		}
	}
}
