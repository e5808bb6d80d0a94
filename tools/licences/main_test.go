package main

import (
	"io"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"vpnd/tools/modules"
)

// A licence that is not on the list, and none at all, are errors.
func TestLook(t *testing.T) {
	ours, err := os.ReadFile("../../LICENSE")
	if err != nil {
		t.Fatal(err)
	}
	const notFree = "Licensed under the Business Source License 1.1\n\nSPDX-License-Identifier: BUSL-1.1\n"
	for name, c := range map[string]struct {
		text string
		ids  []string
	}{
		"free":     {string(ours), []string{"Apache-2.0"}},
		"not free": {notFree, nil},
		"unknown":  {"All rights reserved.\n", nil},
		"none":     {"", nil},
	} {
		dir := t.TempDir()
		if c.text != "" {
			if err := os.WriteFile(filepath.Join(dir, "LICENSE"), []byte(c.text), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		ids, err := look(modules.Module{Path: "example.com/m", Dir: dir}, io.Discard)
		if (err == nil) != (c.ids != nil) || !slices.Equal(ids, c.ids) {
			t.Errorf("%s: %q, %v; want %q", name, ids, err, c.ids)
		}
	}
}
