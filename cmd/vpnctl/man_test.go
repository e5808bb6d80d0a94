package main

import (
	"fmt"
	"io"
	"strings"
	"testing"

	"vpnd/internal/manpage/manpagetest"
)

func TestManualPage(t *testing.T) {
	var c cli
	parser, err := newParser(&c, system{stdout: io.Discard, stderr: io.Discard})
	if err != nil {
		t.Fatal(err)
	}
	page := manual(parser.Model)
	manpagetest.Check(t, page)
	manpagetest.Complete(t, page, parser.Model)
	for _, e := range exitCodes {
		if !strings.Contains(page, fmt.Sprintf("\n.B %d\n", e.code)) {
			t.Errorf("exit code %d is not in the page", e.code)
		}
	}
}
