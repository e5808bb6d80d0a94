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

var equivalents = []equivalent{
	{"peers/lockout.go", "if u.Lockouts < 7 { // 15 min * 2^7 is more than a day", "7", "8",
		"one shift more is more than a day, too"},
	{"acl/rules/tables.go", "if len(pr.conds) > 1 {", "1", "0",
		"with one condition all rules have that one, which the loop finds as well"},
	{"peers/lockout.go", "if u.Lockouts < 7 { // 15 min * 2^7 is more than a day", "<", "<=",
		"the length is bounded by a day either way"},
	{"internal/dataplane/netstack/session.go", "for k := len(n.starts); k > 0 && n.starts[k-1].gap <= gap; k-- {", "0", "1",
		"the first start's gap, noGap, is above every other"},
	{"acl/rules/tables.go", "if len(pr.conds) > 1 {", ">", ">=",
		"with one condition the look finds that one, too"},
}

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
