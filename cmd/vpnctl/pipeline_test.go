package main

import (
	"os"
	"regexp"
	"strings"

	"github.com/rogpeppe/go-internal/testscript"
)

var shellBlock = regexp.MustCompile("(?ms)^```sh\n(.*?)^```$")

// pipelines writes the pipelines of docs/policy.md into the files review.sh and merge.sh,
// so that a script runs what the page shows.
func pipelines(page string) func(*testscript.TestScript, bool, []string) {
	return func(ts *testscript.TestScript, neg bool, args []string) {
		text, err := os.ReadFile(page)
		ts.Check(err)
		_, section, _ := strings.Cut(string(text), "\n### From a Git repository\n")
		section, _, _ = strings.Cut(section, "\n## ")
		blocks := shellBlock.FindAllStringSubmatch(section, -1)
		if neg || len(args) > 0 || len(blocks) != 2 {
			ts.Fatalf("%s has %d pipelines, not 2", page, len(blocks))
		}
		for i, name := range []string{"review.sh", "merge.sh"} {
			ts.Check(os.WriteFile(ts.MkAbs(name), []byte(blocks[i][1]), 0o600))
		}
	}
}
