// Command licences lists the licences of everything that is linked into the programs, for
// THIRD_PARTY_LICENSES, and fails when one is not on the short list of free licences.
//
//	go run -C tools ./licences [-out FILE] [GOOS/GOARCH...]
package main

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/google/licensecheck"

	"vpnd/tools/modules"
)

// free are the licences that a linked module may have, by their SPDX identifiers: all are
// free software licences that an Apache-2.0 program may be linked with statically.
var free = []string{"Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "ISC", "MIT", "MPL-2.0", "Unlicense", "CC0-1.0", "0BSD"}

// Files that hold a licence, and what goes along with one: a notice, a grant of patents.
var (
	licence = regexp.MustCompile(`(?i)^(licen[cs]e|copying)([.-].*)?$`)
	beside  = regexp.MustCompile(`(?i)^(notice|patents)([.-].*)?$`)
)

func main() {
	out := flag.String("out", "", "write the licences' texts to this file")
	root := flag.String("root", "..", "the repository")
	flag.Parse()
	if err := run(*root, *out, flag.Args()); err != nil {
		fmt.Fprintf(os.Stderr, "licences: %v\n", err)
		os.Exit(1)
	}
}

func run(root, out string, platforms []string) error {
	if len(platforms) == 0 {
		platforms = []string{"linux/amd64", "linux/arm64", "linux/arm", "darwin/arm64", "windows/amd64"}
	}
	list, err := modules.Linked(root, platforms...)
	if err != nil {
		return err
	}
	goroot, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		return fmt.Errorf("asking go for its folder: %w", err)
	}
	list = append(list, modules.Module{Path: "Go's standard library", Dir: strings.TrimSpace(string(goroot))})
	var book bytes.Buffer
	fmt.Fprintf(&book, "vpnd is linked with the following modules, whose licences follow.\n")
	var errs []error
	for _, m := range list {
		ids, err := look(m, &book)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		fmt.Printf("%-30s %s %s\n", strings.Join(ids, ", "), m.Path, m.Version)
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	if out == "" {
		return nil
	}
	return os.WriteFile(out, book.Bytes(), 0o644)
}

// look reads a module's licence files, appends them to book, and says which licences they
// are: each must be on the list, and there must be one.
func look(m modules.Module, book io.Writer) (ids []string, err error) {
	entries, err := os.ReadDir(m.Dir)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", m.Path, err)
	}
	for _, e := range entries {
		if !licence.MatchString(e.Name()) && !beside.MatchString(e.Name()) || !e.Type().IsRegular() {
			continue
		}
		text, err := os.ReadFile(filepath.Join(m.Dir, e.Name()))
		if err != nil {
			return nil, fmt.Errorf("%s: %w", m.Path, err)
		}
		fmt.Fprintf(book, "\n%s\n%s %s: %s\n\n%s\n", strings.Repeat("=", 78), m.Path, m.Version, e.Name(), bytes.TrimSpace(text))
		if beside.MatchString(e.Name()) {
			continue
		}
		for _, found := range licensecheck.Scan(text).Match {
			if !slices.Contains(free, found.ID) {
				return nil, fmt.Errorf("%s: %s says %s, which is not on the list of free licences in tools/licences/main.go", m.Path, e.Name(), found.ID)
			}
			if !slices.Contains(ids, found.ID) {
				ids = append(ids, found.ID)
			}
		}
	}
	if len(ids) == 0 {
		return nil, fmt.Errorf("%s: no licence that could be told in %s: look at it, or do without the module", m.Path, m.Dir)
	}
	return ids, nil
}
