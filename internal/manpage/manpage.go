// Package manpage makes manual pages (man(7) macros) of the programs' own definitions of
// their flags and commands, so that no page says what the program does not do.
package manpage

import (
	"fmt"
	"strings"

	"github.com/alecthomas/kong"
)

// Page is what a manual page says beside a program's flags and commands.
type Page struct {
	Name     string // of the program or file
	Section  int    // 1 commands, 5 files, 8 administration
	Manual   string // the page's header: "User Commands", "System administration"
	Short    string // one line: what it is
	Synopsis []string
	About    string // paragraphs with an empty line between them
	After    []Section
	SeeAlso  []string // "wg(8)"
}

// Section is a chapter of terms and what is said of them. Text stands before them.
type Section struct {
	Title, Text string
	Terms       []Term
}

// Term is a flag, a file, a variable, a command line, with its explanation.
type Term struct{ Name, Text string }

// writer writes man(7) macros.
type writer struct{ strings.Builder }

// Command is the page of a program: its flags, then its commands if it has any.
func (p Page) Command(model *kong.Application) string {
	var w writer
	w.head(p)
	w.line(".SH OPTIONS")
	w.flags(model.Flags)
	if leaves := model.Leaves(true); len(leaves) > 1 || len(leaves) == 1 && leaves[0] != model.Node {
		w.line(".SH COMMANDS")
		for _, n := range leaves {
			w.command(n)
		}
	}
	w.tail(p)
	return w.String()
}

// File is the page of something that has no flags.
func (p Page) File() string {
	var w writer
	w.head(p)
	w.tail(p)
	return w.String()
}

func (w *writer) head(p Page) {
	w.line(`.TH %s %d "" "vpnd" "%s"`, roff(strings.ToUpper(p.Name)), p.Section, p.Manual)
	w.line(".SH NAME\n%s \\- %s", roff(p.Name), roff(p.Short))
	w.line(".SH SYNOPSIS")
	for _, s := range p.Synopsis {
		w.line(".PP")
		w.text(s)
	}
	w.line(".SH DESCRIPTION")
	w.text(p.About)
}

func (w *writer) tail(p Page) {
	for _, s := range p.After {
		w.line(".SH %s", strings.ToUpper(s.Title))
		if s.Text != "" {
			w.text(s.Text)
		}
		for _, t := range s.Terms {
			w.line(".TP\n.B %s", roff(t.Name))
			w.text(t.Text)
		}
	}
	if len(p.SeeAlso) > 0 {
		w.line(".SH SEE ALSO")
		for i, s := range p.SeeAlso {
			name, section, _ := strings.Cut(s, "(")
			end := ","
			if i == len(p.SeeAlso)-1 {
				end = ""
			}
			w.line(".BR %s (%s%s", roff(name), section, end)
		}
	}
}

func (w *writer) line(format string, args ...any) {
	fmt.Fprintf(w, format+"\n", args...)
}

// text writes paragraphs; a line must not begin as a macro does.
func (w *writer) text(s string) {
	for l := range strings.SplitSeq(strings.TrimSpace(s), "\n") {
		l = roff(strings.TrimSpace(l))
		if strings.HasPrefix(l, ".") || strings.HasPrefix(l, `\(aq`) {
			l = `\&` + l
		}
		if l != "" {
			w.line("%s", l)
		} else {
			w.line(".PP")
		}
	}
}

// roff escapes what troff would read as its own (groff_char(7)).
func roff(s string) string {
	return strings.NewReplacer(`\`, `\e`, "-", `\-`, "'", `\(aq`, "`", `\(ga`, "^", `\(ha`, "~", `\(ti`, "…", "...").Replace(s)
}

func (w *writer) command(n *kong.Node) {
	w.line(".SS %s", roff(strings.Join(strings.Fields(path(n))[1:], " ")))
	synopsis := `\fB` + roff(path(n)) + `\fR`
	for _, p := range n.Positional {
		synopsis += " " + roff(p.Summary())
	}
	if len(n.Flags) > 0 {
		synopsis += ` [\fIoptions\fR]`
	}
	w.line("%s\n.PP", synopsis)
	w.text(n.Help)
	if n.Detail != "" {
		w.line(".PP")
		w.text(n.Detail)
	}
	for _, p := range n.Positional {
		w.line(".TP\n%s", roff(p.Summary()))
		w.text(p.Help)
	}
	w.flags(n.Flags)
}

// path is a command as one types it, without its arguments.
func path(n *kong.Node) string {
	if n.Parent == nil {
		return n.Name
	}
	return path(n.Parent) + " " + n.Name
}

func (w *writer) flags(flags []*kong.Flag) {
	for _, f := range flags {
		if f.Hidden {
			continue
		}
		name := `\fB` + roff("--"+f.Name) + `\fR`
		if f.Short != 0 {
			name = `\fB` + roff("-"+string(f.Short)) + `\fR, ` + name
		}
		if !f.IsBool() {
			name += ` \fI` + roff(f.FormatPlaceHolder()) + `\fR`
		}
		w.line(".TP\n%s", name)
		w.text(f.Help)
		if len(f.Envs) > 0 {
			w.line("Environment: \\fB%s\\fR.", roff(strings.Join(f.Envs, ", ")))
		}
	}
}
