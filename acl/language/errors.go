package language

import (
	"cmp"
	"fmt"
	"slices"
	"sort"
	"strings"

	"github.com/tailscale/hujson"
)

// Error is one fault of a policy's text.
type Error struct {
	Line    int    // from 1
	Column  int    // from 1, in bytes
	Code    Code   // what kind of fault
	Text    string // the offending text
	Message string // what is wrong, and the remedy
	Warning bool   // true: the policy means something all the same
}

func (e Error) Error() string {
	if e.Warning {
		return fmt.Sprintf("%d:%d: warning: %s", e.Line, e.Column, e.Message)
	}
	return fmt.Sprintf("%d:%d: %s", e.Line, e.Column, e.Message)
}

// ErrorList is every fault of a policy's text, in the order of the text.
type ErrorList []Error

// Error has one line for each fault.
func (l ErrorList) Error() string {
	lines := make([]string, len(l))
	for i, e := range l {
		lines[i] = e.Error()
	}
	return strings.Join(lines, "\n")
}

// Fatal tells whether one of the faults is more than a warning.
func (l ErrorList) Fatal() bool {
	return slices.ContainsFunc(l, func(e Error) bool { return !e.Warning })
}

// Sort puts the faults into the order of the text.
func (l ErrorList) Sort() {
	slices.SortStableFunc(l, func(a, b Error) int {
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
	})
}

// maxErrors bounds the faults that are told of one text: nobody reads more, and a
// hostile text shall not make us write a book.
const maxErrors = 1000

// shownText is the most of an offending text that an Error repeats, in bytes.
const shownText = 80

// TextRange is a piece of the text: offsets of its first byte and of the byte after it.
type TextRange struct{ Start, end int }

func textRangeOf(v *hujson.Value) TextRange { return TextRange{v.StartOffset, v.EndOffset} }

// source is a policy's text, which turns offsets into lines and columns.
type source struct {
	text  []byte
	lines []int // offset of the first byte of each line
}

func newSource(text []byte) *source {
	s := &source{text: text, lines: []int{0}}
	for i, b := range text {
		if b == '\n' {
			s.lines = append(s.lines, i+1)
		}
	}
	return s
}

// position returns the line and column, both from 1, of a byte of the text.
func (s *source) position(offset int) (line, column int) {
	offset = max(0, min(offset, len(s.text)))
	line = sort.SearchInts(s.lines, offset+1)
	return line, offset - s.lines[line-1] + 1
}

// Faults collects errors.
type Faults struct {
	src  *source
	List ErrorList
	more int // how many were left out

	moreFatal bool // one of those is more than a warning
	warnings  int  // how many of list are warnings

	hints int // how many were looked for
}

func (f *Faults) add(p TextRange, warning bool, code Code, format string, args ...any) {
	if len(f.List) >= maxErrors {
		f.more++
		if warning || f.warnings == 0 {
			f.moreFatal = f.moreFatal || !warning
			return
		}
		// What refuses the text is told rather than a warning.
		last := len(f.List) - 1
		for !f.List[last].Warning {
			last--
		}
		f.List = slices.Delete(f.List, last, last+1)
		f.warnings--
	}
	if warning {
		f.warnings++
	}
	e := Error{Code: code, Message: fmt.Sprintf(format, args...), Warning: warning}
	e.Line, e.Column = f.src.position(p.Start)
	start := max(0, min(p.Start, len(f.src.text)))
	end := max(start, min(p.end, len(f.src.text)))
	e.Text = Short(string(f.src.text[start:end]))
	f.List = append(f.List, e)
}

// Errorf adds a fault for which the policy is refused.
func (f *Faults) Errorf(p TextRange, c Code, format string, args ...any) {
	f.add(p, false, c, format, args...)
}

func (f *Faults) warnf(p TextRange, c Code, format string, args ...any) {
	f.add(p, true, c, format, args...)
}

// Sorted returns the faults in the order of the text.
func (f *Faults) Sorted() ErrorList {
	f.List.Sort()
	if f.more > 0 {
		last := f.List[len(f.List)-1]
		// A thousand names of people who are to come are no reason to refuse a policy.
		f.List = append(f.List, Error{Line: last.Line, Column: last.Column, Code: CodeMoreFaults, Warning: !f.moreFatal,
			Message: fmt.Sprintf("and %d faults more: mend these first", f.more)})
		f.more = 0
	}
	return f.List
}

// Short cuts a text for a message at its first line and at shownText bytes.
func Short(s string) string {
	if i := strings.IndexAny(s, "\r\n"); i >= 0 {
		s = s[:i] + "…"
	}
	if len(s) > shownText {
		s = strings.ToValidUTF8(s[:shownText], "") + "…"
	}
	return s
}

// nearest returns the candidate that is most like s, for "did you mean", or "".
func nearest(s string, candidates []string) string {
	if len(s) > 64 {
		return ""
	}
	best, least := "", 1+max(1, len(s)/3)
	for i, c := range candidates {
		if i == 2000 { // enough to help, bounded for hostile texts
			break
		}
		if len(c) > 64 || len(c)-len(s) >= least || len(s)-len(c) >= least {
			continue
		}
		if d := distance(strings.ToLower(s), strings.ToLower(c)); d < least {
			best, least = c, d
		}
	}
	return best
}

// distance is the Levenshtein distance of two short strings, in bytes.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := 1; i <= len(a); i++ {
		diagonal := row[0]
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			diagonal, row[j] = row[j], min(row[j]+1, row[j-1]+1, diagonal+cost)
		}
	}
	return row[len(b)]
}

// maxHints bounds how many "did you mean" are looked for in one text.
const maxHints = 20

// hint is "; did you mean …?" for the candidate nearest to s, or nothing.
func (f *Faults) hint(s string, candidates func() []string) string {
	if f.hints++; f.hints > maxHints {
		return ""
	}
	return orMean(s, candidates())
}

func orMean(s string, candidates []string) string {
	if n := nearest(s, candidates); n != "" {
		return fmt.Sprintf("; did you mean %q?", n)
	}
	return ""
}
