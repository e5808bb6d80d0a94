package peers

import (
	"bytes"
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

func TestRefusalSaysCodeAndParameters(t *testing.T) {
	err := refuse("policy_waits", uint64(7), "alice \"a\"\n", start.Add(time.Nanosecond))
	const want = `policy_waits version=7 by="alice \"a\"\n" until=2026-11-23T12:00:00.000000001Z`
	if got := err.Error(); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if !errors.Is(err, ErrConflict) || errors.Is(err, ErrInvalid) {
		t.Error("its reason is another one")
	}
	if got := refuse("session_length", 90*time.Minute, minSession, maxSession).Error(); got != "session_length length=1h30m0s least=1s most=744h0m0s" {
		t.Error(got)
	}
}

// Each refusal in the source has the parameters of its code, and each code is used. Where
// only a part of the code stands in the call, the table has it with some beginning.
func TestRefusalsAreOfTheTable(t *testing.T) {
	used := map[string]bool{codeFormer: true}
	files := token.NewFileSet()
	sources, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	text := func(e ast.Expr) (string, bool) {
		l, ok := e.(*ast.BasicLit)
		if !ok {
			return "", false
		}
		s, err := strconv.Unquote(l.Value)
		return s, err == nil
	}
	for _, name := range sources {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		f, err := parser.ParseFile(files, name, nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(f, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok {
				return true
			}
			fun, ok := call.Fun.(*ast.Ident)
			if !ok {
				return true
			}
			at := files.Position(call.Pos())
			switch fun.Name {
			case "refuse":
				var codes []string
				switch x := call.Args[0].(type) {
				case *ast.BasicLit:
					s, _ := text(x)
					codes = []string{s}
				case *ast.BinaryExpr:
					end, _ := text(x.Y)
					for _, c := range refusals {
						if strings.HasSuffix(c.Name, end) && c.Name != "policy_character" {
							codes = append(codes, c.Name)
						}
					}
				case *ast.Ident: // checkPrefix
					codes = []string{"network_prefix", "route_prefix"}
				}
				if len(codes) == 0 {
					t.Errorf("%s: no code", at)
				}
				for _, name := range codes {
					c := codeNamed(name)
					if c == nil || len(c.Params) != len(call.Args)-1 {
						t.Errorf("%s: %s with %d parameters is not of the table: %+v", at, name, len(call.Args)-1, c)
					}
					used[name] = true
				}
			case "checkText":
				if code, ok := text(call.Args[0]); ok {
					used[code+"_character"] = true
				}
			}
			return true
		})
	}
	seen := map[string]bool{}
	for _, c := range refusals {
		if !used[c.Name] || seen[c.Name] {
			t.Errorf("the code %s is not used, or twice there", c.Name)
		}
		seen[c.Name] = true
		if c.Reason == nil && c.Name != codeFormer {
			t.Errorf("the code %s has no reason", c.Name)
		}
	}
}

func TestRefusalsSurviveASnapshot(t *testing.T) {
	c := newCluster(t)
	enrol(c, "alice", "laptop")
	first := c.ask("again", UserAdd{id("bob"), "ALICE", nil})
	if got := first.Err.Error(); got != "user_exists user=alice" {
		t.Fatal(got)
	}
	b := c.snapshot()
	if bytes.Contains(b, []byte("choose another name")) || !bytes.Contains(b, []byte("user_exists")) {
		t.Error("the snapshot has a sentence, or no code")
	}
	if err := c.Restore(bytes.NewReader(b)); err != nil {
		t.Fatal(err)
	}
	again := c.ask("again", UserAdd{id("bob"), "ALICE", nil})
	if !errors.Is(again.Err, ErrExists) || again.Err.Error() != first.Err.Error() {
		t.Errorf("the repeat gets %v", again.Err)
	}
	for _, stored := range []struct {
		code   string
		values []string
	}{{"nobody_knows", nil}, {"user_exists", nil}, {"user_exists", []string{"a", "b"}}} {
		if r, err := readRefusal(stored.code, stored.values); err == nil {
			t.Errorf("read as %v", r)
		}
	}
}
