package acltest

import (
	"fmt"
	"os"
	"slices"
	"strings"
)

// DocPart is a piece of docs/policy.md that is executed: a fenced block, or a table.
type DocPart struct {
	Line  int
	Info  string // of a block: "hujson", "hujson refused", "text"; of a table: its header
	Lines []string
}

// Text is the part without its marks.
func (p DocPart) Text() string { return strings.Join(p.Lines, "\n") + "\n" }

// Cells are the cells of a table's rows, without the marks of code.
func (p DocPart) Cells() (rows [][]string) {
	for _, l := range p.Lines {
		row := strings.Split(strings.Trim(l, "|"), " | ")
		for i := range row {
			row[i] = strings.TrimSpace(row[i])
			if s, ok := strings.CutPrefix(row[i], "`"); ok && strings.Count(s, "`") == 1 {
				row[i] = strings.TrimSuffix(s, "`")
			}
		}
		rows = append(rows, row)
	}
	return rows
}

// ReadDoc takes docs/policy.md, or another page, apart.
func ReadDoc(file string) (text string, parts []DocPart, err error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return "", nil, err
	}
	var open *DocPart
	inTable := false
	for i, l := range strings.Split(string(b), "\n") {
		fence, isFence := strings.CutPrefix(l, "```")
		switch {
		case isFence && open == nil:
			open = &DocPart{Line: i + 1, Info: fence}
		case isFence:
			parts = append(parts, *open)
			open = nil
		case open != nil:
			open.Lines = append(open.Lines, l)
		case strings.HasPrefix(l, "|") && !inTable:
			parts = append(parts, DocPart{Line: i + 1, Info: l})
		case strings.HasPrefix(l, "|---"):
		case strings.HasPrefix(l, "|"):
			p := &parts[len(parts)-1]
			p.Lines = append(p.Lines, l)
		}
		inTable = open == nil && !isFence && strings.HasPrefix(l, "|")
	}
	if open != nil {
		return "", nil, fmt.Errorf("the block of line %d has no end", open.Line)
	}
	return string(b), parts, nil
}

// SameTable holds a table of two columns against what it should say; "" if it does.
func SameTable(rows [][]string, want map[string]string) string {
	var got, all []string
	for _, row := range rows {
		got = append(got, fmt.Sprintf("| `%s` | %s |", row[0], row[1]))
	}
	for name, value := range want {
		all = append(all, fmt.Sprintf("| `%s` | %s |", name, value))
	}
	slices.Sort(got)
	slices.Sort(all)
	if slices.Equal(got, all) {
		return ""
	}
	return "got\n" + strings.Join(got, "\n") + "\nwant\n" + strings.Join(all, "\n")
}
