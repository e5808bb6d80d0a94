package main

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// mutant is one place that is changed.
type mutant struct {
	Area     int
	File     string
	Sum      string // of the file's content
	Line     int
	Offset   int
	From, To string
	Text     string `json:"-"` // the line

	End        end
	By, Detail string
}

// end is what became of a mutant.
type end string

const (
	killed   end = "killed"
	timedOut end = "timed out" // the tests hung: noticed, too
	survived end = "SURVIVED"
	unbuilt  end = "not built" // the compiler notices: no question to the tests
)

func (m mutant) String() string {
	to := m.To
	if to == "" {
		to = "nothing"
	}
	return fmt.Sprintf("%s:%d  %s -> %s", m.File, m.Line, m.From, to)
}

// key is by what a mutant is known in the log.
func (m mutant) key() string { return fmt.Sprintf("%s %s %d %s", m, m.Sum, m.Offset, m.To) }

// turned is what becomes of an operator.
var turned = map[token.Token]token.Token{
	token.EQL: token.NEQ, token.NEQ: token.EQL, token.LSS: token.LEQ, token.LEQ: token.LSS,
	token.GTR: token.GEQ, token.GEQ: token.GTR, token.LAND: token.LOR, token.LOR: token.LAND,
}

// candidates are all mutants of all areas, in order.
func candidates() (all []mutant, err error) {
	for i, a := range areas {
		for _, name := range a.files {
			path := filepath.Join(a.dir, name)
			text, err := os.ReadFile(path)
			if err != nil {
				return nil, err
			}
			found, err := mutants(path, text)
			if err != nil {
				return nil, err
			}
			for _, m := range found {
				m.Area = i
				all = append(all, m)
			}
		}
	}
	return all, nil
}

// mutants are those of a file: an operator is turned, a "not" left out, a truth value turned, an
// error that is returned becomes nil, an integer that something is compared with is one more or
// one less.
func mutants(path string, text []byte) (all []mutant, err error) {
	fset := token.NewFileSet()
	file, err := parser.ParseFile(fset, path, text, 0)
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(text)
	lines := strings.Split(string(text), "\n")
	add := func(pos token.Pos, from, to string) {
		p := fset.Position(pos)
		all = append(all, mutant{File: path, Sum: hex.EncodeToString(sum[:8]), Line: p.Line, Offset: p.Offset,
			From: from, To: to, Text: strings.TrimSpace(lines[p.Line-1])})
	}
	// integers adds those of an expression that decides, each once.
	seen := map[token.Pos]bool{}
	integers := func(e ast.Node) {
		ast.Inspect(e, func(node ast.Node) bool {
			lit, ok := node.(*ast.BasicLit)
			if !ok || lit.Kind != token.INT || seen[lit.Pos()] {
				return true
			}
			seen[lit.Pos()] = true
			if n, err := strconv.ParseInt(lit.Value, 0, 32); err == nil {
				add(lit.Pos(), lit.Value, fmt.Sprint(n+1))
				if n > 0 {
					add(lit.Pos(), lit.Value, fmt.Sprint(n-1))
				}
			}
			return true
		})
	}
	// body walks a function that returns an error, or one that does not.
	var body func(of ast.Node, fails bool)
	body = func(of ast.Node, fails bool) {
		ast.Inspect(of, func(node ast.Node) bool {
			switch x := node.(type) {
			case *ast.FuncLit:
				body(x.Body, lastIsError(x.Type))
				return false
			case *ast.BinaryExpr:
				to, ok := turned[x.Op]
				if !ok {
					break
				}
				add(x.OpPos, x.Op.String(), to.String())
				if x.Op != token.LAND && x.Op != token.LOR {
					integers(x)
				}
			case *ast.CaseClause:
				for _, e := range x.List {
					integers(e)
				}
			case *ast.UnaryExpr:
				if x.Op == token.NOT {
					add(x.OpPos, "!", "")
				}
			case *ast.ReturnStmt:
				if !fails || len(x.Results) == 0 {
					break
				}
				switch e := x.Results[len(x.Results)-1].(type) {
				case *ast.Ident:
					if e.Name != "nil" {
						add(e.Pos(), e.Name, "nil")
					}
				case *ast.SelectorExpr:
					from := string(text[fset.Position(e.Pos()).Offset:fset.Position(e.End()).Offset])
					add(e.Pos(), from, "nil")
				}
			case *ast.Ident:
				if x.Name == "true" {
					add(x.Pos(), "true", "false")
				} else if x.Name == "false" {
					add(x.Pos(), "false", "true")
				}
			}
			return true
		})
	}
	for _, d := range file.Decls {
		fn, ok := d.(*ast.FuncDecl)
		if ok && fn.Body != nil && fn.Name.Name != "String" && fn.Name.Name != "Error" {
			body(fn.Body, lastIsError(fn.Type))
		}
	}
	return all, nil
}

// lastIsError says whether a function's last result is an error.
func lastIsError(f *ast.FuncType) bool {
	if f.Results == nil || len(f.Results.List) == 0 {
		return false
	}
	id, ok := f.Results.List[len(f.Results.List)-1].Type.(*ast.Ident)
	return ok && id.Name == "error"
}
