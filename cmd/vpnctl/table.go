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
}

func newTable(heads ...string) *table { return &table{heads: heads} }

func (t *table) add(cells ...cell) { t.rows = append(t.rows, cells) }

func (t *table) draw(u *ui) {
	head := make([]cell, len(t.heads))
	for i, h := range t.heads {
		head[i] = cell{h, faint}
	}
	rows := append([][]cell{head}, t.rows...)
	width := make([]int, len(t.heads))
	for _, r := range rows {
		for i, c := range r {
			r[i].text = clean(c.text)
			width[i] = max(width[i], utf8.RuneCountInString(r[i].text))
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
		u.write(u.paint(faint, r.name) + strings.Repeat(" ", width-len(r.name)) + "  " + u.paint(r.value.style, clean(r.value.text)) + "\n")
	}
}
