package words

import (
	"go/ast"
	goparser "go/parser"
	"go/token"
	"slices"
	"strconv"
	"strings"
	"testing"

	"vpnd/internal/control"
)

// calls finds the calls of a function whose first argument is a literal, and how many
// arguments follow it.
func calls(t *testing.T, function string, patterns ...string) map[string]int {
	t.Helper()
	found := map[string]int{}
	for _, name := range glob(t, patterns...) {
		f, err := goparser.ParseFile(token.NewFileSet(), name, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(f, func(n ast.Node) bool {
			c, ok := n.(*ast.CallExpr)
			if !ok || len(c.Args) == 0 {
				return true
			}
			called := ""
			switch e := c.Fun.(type) {
			case *ast.Ident:
				called = e.Name
			case *ast.SelectorExpr:
				called = e.Sel.Name
			}
			lit, ok := c.Args[0].(*ast.BasicLit)
			if called != function || !ok || lit.Kind != token.STRING {
				return true
			}
			code, err := strconv.Unquote(lit.Value)
			if err != nil {
				t.Fatal(err)
			}
			if n, ok := found[code]; ok && n != len(c.Args)-1 && function == "Refuse" {
				t.Errorf("%s is refused with %d parameters and with %d", code, n, len(c.Args)-1)
			}
			found[code] = len(c.Args) - 1
			return true
		})
	}
	if len(found) < 5 {
		t.Fatalf("only %d calls of %s were found", len(found), function)
	}
	return found
}

// TestEveryRefusalHasWords: each code of State and of the use cases has a text in every
// language, which names no parameter that the code lacks; and each text has its code.
func TestEveryRefusalHasWords(t *testing.T) {
	known := map[string]bool{}
	for _, c := range control.Codes() {
		known[c.Name] = true
		values := map[string]string{}
		for _, p := range c.Params {
			values[p] = "7"
		}
		for _, l := range All() {
			params, ok := l.Parameters("refusal." + c.Name)
			if !ok {
				t.Errorf("%s has no words in %s", c.Name, l.Name())
			}
			for _, p := range params {
				if !slices.Contains(c.Params, p) {
					t.Errorf("%s in %s: there is no parameter %s", c.Name, l.Name(), p)
				}
			}
		}
	}
	own := read(t, root+"/portal/errors.go")
	for _, name := range glob(t, "portal/*.go") {
		own += read(t, name)
	}
	for id := range English().texts {
		if code, ok := strings.CutPrefix(id, "refusal."); ok && !known[code] && !strings.Contains(own, `"`+code+`"`) {
			t.Errorf("nobody refuses with %s", code)
		}
	}
}

// TestRefusalsAreKnown: what control and the edge refuse with is listed, with that many
// parameters; and a reason of explain has its text.
func TestRefusalsAreKnown(t *testing.T) {
	count := map[string]int{}
	for _, c := range control.Codes() {
		if _, twice := count[c.Name]; twice {
			t.Errorf("%s is listed twice", c.Name)
		}
		count[c.Name] = len(c.Params)
	}
	used := calls(t, "Refuse", "internal/control/*.go", "internal/api/*.go")
	for code, n := range used {
		if want, ok := count[code]; !ok || n != want {
			t.Errorf("Refuse(%q) has %d parameters; it is listed: %v, with %d", code, n, ok, want)
		}
	}
	for code := range calls(t, "explained", "internal/control/*.go") {
		if !English().Has("explain." + code) {
			t.Errorf("explain.%s has no text", code)
		}
	}
}

// TestNoSentenceBelowTheEdges: peers and control hold no sentence for people. What they say
// to the log, and what an operator reads at start, begins small and ends without a stop.
func TestNoSentenceBelowTheEdges(t *testing.T) {
	for _, name := range glob(t, "peers/*.go", "internal/control/*.go", "internal/api/*.go") {
		f, err := goparser.ParseFile(token.NewFileSet(), name, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(f, func(n ast.Node) bool {
			lit, ok := n.(*ast.BasicLit)
			if !ok || lit.Kind != token.STRING {
				return true
			}
			s, err := strconv.Unquote(lit.Value)
			if err == nil && strings.Contains(s, " ") && s[0] >= 'A' && s[0] <= 'Z' && strings.HasSuffix(s, ".") {
				t.Errorf("%s says %q", name, s)
			}
			return true
		})
	}
}
