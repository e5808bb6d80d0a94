package vpnd_test

import (
	"os"
	"regexp"
	"strings"
	"testing"
)

// The table "Where is it decided?" leads to files that exist.
func TestDecidedInFilesThatExist(t *testing.T) {
	doc, err := os.ReadFile("docs/architecture.md")
	if err != nil {
		t.Fatal(err)
	}
	_, table, ok := strings.Cut(string(doc), "## Where is it decided?")
	if !ok {
		t.Fatal("docs/architecture.md has no such table")
	}
	table, _, _ = strings.Cut(table, "\n## ")
	row := regexp.MustCompile("(?m)^\\| [^|]+\\? \\| `([^`]+)` \\|$")
	rows := row.FindAllStringSubmatch(table, -1)
	if len(rows) < 20 {
		t.Errorf("%d rows could be read", len(rows))
	}
	for _, r := range rows {
		if info, err := os.Stat(r[1]); err != nil || !info.Mode().IsRegular() {
			t.Errorf("%s is no file: %v", r[1], err)
		}
	}
}
