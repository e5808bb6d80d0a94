package main

import (
	"fmt"
	"slices"
)

// equivalent is a mutant that does what the code does, so that no test can notice it.
type equivalent struct {
	file, line string // the line's text, as its number changes
	from, to   string
	why        string
}

var equivalents = []equivalent{}

// unlessEquivalent leaves out the mutants that are known to change nothing, and fails for an
// entry of the list that is of no mutant any more.
func unlessEquivalent(all []mutant) ([]mutant, error) {
	for _, e := range equivalents {
		n := len(all)
		all = slices.DeleteFunc(all, func(m mutant) bool {
			return m.File == e.file && m.Text == e.line && m.From == e.from && m.To == e.to
		})
		if len(all) == n {
			return nil, fmt.Errorf("equivalents.go: no mutant %q -> %q of %s: %s", e.from, e.to, e.file, e.line)
		}
	}
	return all, nil
}
