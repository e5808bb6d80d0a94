package main

import (
	"testing"

	"vpnd/internal/manpage/manpagetest"
)

func TestManualPage(t *testing.T) {
	k := newParser(&Flags{})
	page := manual(k.Model)
	manpagetest.Check(t, page)
	manpagetest.Complete(t, page, k.Model)
}
