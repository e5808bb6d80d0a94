package main

import (
	"strings"
	"unicode/utf8"
)

// cell is a text of a table, cleaned when it is drawn, with a style.
type cell struct {
	text  string
	style string
}

func text(s string) cell { return cell{text: s} }

// table draws rows under headings, each column as wide as its widest cell.
type table struct {
	heads []string
	rows  [][]cell
	over  map[int]bool // rows whose last cell reaches over the columns to its right, which are empty
}

func newTable(heads ...string) *table { return &table{heads: heads, over: map[int]bool{}} }

func (t *table) add(cells ...cell) { t.rows = append(t.rows, cells) }

// addOver adds a row that ends before the last column, however wide its last cell is.
func (t *table) addOver(cells ...cell) {
	t.over[len(t.rows)] = true
	t.add(cells...)
}

func (t *table) draw(u *ui) {
	head := make([]cell, len(t.heads))
	for i, h := range t.heads {
		head[i] = cell{h, faint}
	}
	rows := append([][]cell{head}, t.rows...)
	width := make([]int, len(t.heads))
	for n, r := range rows {
		for i, c := range r {
			r[i].text = clean(c.text)
			if !t.over[n-1] || i < len(r)-1 {
				width[i] = max(width[i], utf8.RuneCountInString(r[i].text))
			}
		}
	}
	for _, r := range rows {
		var b strings.Builder
		for i, c := range r {
			b.WriteString(u.paint(c.style, c.text))
			if i < len(r)-1 {
				b.WriteString(strings.Repeat(" ", width[i]-utf8.RuneCountInString(c.text)+2))
			}
		}
		u.write(strings.TrimRight(b.String(), " ") + "\n")
	}
}

// facts draws names with values, one a line; an empty value is left out.
type facts struct{ rows []fact }

type fact struct {
	name  string
	value cell
}

func (f *facts) add(name, value string) { f.addStyled(name, value, plain) }

func (f *facts) addStyled(name, value, style string) {
	if value != "" {
		f.rows = append(f.rows, fact{name, cell{value, style}})
	}
}

func (f *facts) draw(u *ui) {
	width := 0
	for _, r := range f.rows {
		width = max(width, len(r.name))
	}
	for _, r := range f.rows {
		lead := u.paint(faint, r.name) + strings.Repeat(" ", width-len(r.name)) + "  "
		for _, line := range wrap(clean(r.value.text), u.columns-width-2) {
			u.write(lead + u.paint(r.value.style, line) + "\n")
			lead = strings.Repeat(" ", width+2)
		}
	}
}

// narrow is how few columns are not worth breaking a text for.
const narrow = 24

// wrap breaks a text at its spaces into lines of at most as many columns; a word that is longer has
// a line to itself.
func wrap(s string, columns int) (lines []string) {
	if columns < narrow {
		return []string{s}
	}
	line, length := "", 0
	for word := range strings.FieldsSeq(s) {
		n := utf8.RuneCountInString(word)
		switch {
		case line == "":
			line, length = word, n
		case length+1+n <= columns:
			line, length = line+" "+word, length+1+n
		default:
			lines = append(lines, line)
			line, length = word, n
		}
	}
	return append(lines, line)
}
