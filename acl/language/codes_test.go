package language

import (
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// The page about the policy tells what each code is.
func TestCodesAreTold(t *testing.T) {
	page, err := os.ReadFile("../../docs/policy.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range Codes() {
		if !strings.Contains(string(page), "\n| `"+string(c)+"` | ") {
			t.Errorf("docs/policy.md does not tell what %s is", c)
		}
	}
}

// The list has every code that there is.
func TestCodesAreListed(t *testing.T) {
	file, err := parser.ParseFile(token.NewFileSet(), "codes.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	var declared []Code
	ast.Inspect(file, func(n ast.Node) bool {
		if v, ok := n.(*ast.ValueSpec); ok {
			for _, x := range v.Values {
				word, err := strconv.Unquote(x.(*ast.BasicLit).Value)
				if err != nil {
					t.Fatal(err)
				}
				declared = append(declared, Code(word))
			}
		}
		return true
	})
	if !slices.Equal(declared, Codes()) {
		t.Errorf("declared are %q, listed %q", declared, Codes())
	}
}

// elsewhere are the codes of faults that the text does not have by itself: acl/review's tests
// have a case for each.
var elsewhere = []Code{CodeLocalTarget, CodeOverBudget, CodeServiceAddress, CodeTestFailed}

// Of a stored policy a part is refused, and what names it with it.
const namesRefused = `{"hosts": {"db": "10.1.2.300"}, "grants": [{"src": ["*"], "dst": ["db"], "ip": ["*"]}]}`

// Every fault of these has a code of the list, and the one that is meant; every code has one.
func TestFaultsHaveCodes(t *testing.T) {
	met := map[Code]bool{}
	for text, want := range map[string]Code{
		`{`:                                    CodeSyntax,
		`[]`:                                   CodeWrongType,
		`{"groups": {}, "groups": {}}`:         CodeDuplicate,
		`{"group": {}}`:                        CodeUnknownKey,
		`{"ssh": []}`:                          CodeUnsupported,
		`{"groups": {"ops": []}}`:              CodeBadName,
		`{"groups": {"group:a": ["group:a"]}}`: CodeCycle,
		`{"groups": {"group:a": ["tag:x"]}}`:   CodeWrongMember,
		`{"hosts": {"app": "10.1.2.3"}}`:       CodeReservedName,
		`{"resources": {"a": {"to": "db:1"}, "b": {"to": "db:1"}}, "grants": [{"src": ["a"], "dst": ["b"]}]}`: CodeResourceAsSource,
		`{"resources": {"b": {"to": "db:1"}}, "grants": [{"src": ["10.1.0.0/16"], "dst": ["b"]}]}`:            CodeResourceFromNetwork,
		`{"hosts": {"db": "10.1.2.300"}}`:                                                                             CodeBadAddress,
		`{"grants": [{"src": ["group:x"], "dst": ["*"], "ip": ["*"]}]}`:                                               CodeUnknownGroup,
		`{"grants": [{"src": ["tag:x"], "dst": ["*"], "ip": ["*"]}]}`:                                                 CodeUnknownTag,
		`{"grants": [{"src": ["autogroup:self"], "dst": ["*"], "ip": ["*"]}]}`:                                        CodeSelfAsSource,
		`{"grants": [{"src": ["autogroup:tagged"], "dst": ["autogroup:self"], "ip": ["*"]}]}`:                         CodeSelfWithoutDevices,
		`{"grants": [{"src": ["*"], "dst": ["app"], "ip": ["tcp:0"]}]}`:                                               CodeBadPort,
		`{"grants": [{"src": ["*"], "dst": ["app"], "ip": ["tpc:1"]}]}`:                                               CodeBadProtocol,
		`{"grants": [{"src": ["*"], "dst": ["app"], "ip": ["*"], "mfa": "soon"}]}`:                                    CodeBadMFA,
		`{"grants": [{"src": ["*"], "dst": ["app"], "ip": ["*"], "hours": ["Mon"]}]}`:                                 CodeBadHours,
		`{"grants": [{"src": ["*"], "dst": ["app"], "ip": ["*"], "expires": "soon"}]}`:                                CodeBadExpires,
		`{"grants": [{"src": ["*"]}]}`:                                                                                CodeMissingKey,
		`{"tests": [{}]}`:                                                                                             CodeTestsNothing,
		`{"acls": [{"action": "accept", "src": ["*"], "dst": ["app"]}]}`:                                              CodeBadDestination,
		`{"grants": [{"src": [], "dst": ["app"], "ip": ["*"]}]}`:                                                      CodeGrantsNothing,
		`{"hosts": {"alice": "10.1.2.3"}, "grants": [{"src": ["*"], "dst": ["alice"], "ip": ["*"]}]}`:                 CodeHostOrUser,
		`{"grants": [` + strings.Repeat(`{"src": 1},`, 2*maxErrors) + `]}`:                                            CodeMoreFaults,
		`{"grants": [{"src": ["*"], "dst": ["app"], "ip": ["icmp:80"]}]}`:                                             CodeNoPorts,
		`{"grants": [` + strings.Repeat(`{"src": ["*"], "dst": ["app"], "ip": ["*"]},`, MaxGrants+1) + `]}`:           CodeOverLimit,
		strings.Repeat(" ", MaxText) + `{}`:                                                                           CodeTooLarge,
		`{"grants": [{"src": ["*"], "dst": ["app"], "ip": ["*"], "note": "` + strings.Repeat("x", MaxNote+1) + `"}]}`: CodeTooLong,
		`{"grants": [{"src": ["*"], "dst": ["host:nas"], "ip": ["*"]}]}`:                                              CodeUnknownHost,
		`{"grants": [{"src": ["*"], "dst": ["ipset:lan"], "ip": ["*"]}]}`:                                             CodeUnknownIPSet,
		`{"ipsets": {"ipset:a": ["ipset:b"]}}`:                                                                        CodeUnknownIPSet,
		`{"grants": [{"src": ["team:ops"], "dst": ["app"], "ip": ["*"]}]}`:                                            CodeUnknownKind,
		`{"grants": [{"src": ["*"], "dst": ["nas"], "ip": ["*"]}]}`:                                                   CodeUnknownName,
		`{"grants": [{"src": ["bob"], "dst": ["app"], "ip": ["*"]}]}`:                                                 CodeUnknownUser,
	} {
		p, err := Parse([]byte(text))
		list, ok := err.(ErrorList)
		if err == nil {
			f := p.Faults()
			p.CheckNames(f, map[string]bool{"alice": true}, true)
			list, ok = append(p.Warnings(), f.Sorted()...), true
		}
		if !ok {
			t.Errorf("%.99s: %v", text, err)
			continue
		}
		met[want] = true
		var got []Code
		for _, e := range list {
			got = append(got, e.Code)
			if !slices.Contains(Codes(), e.Code) {
				t.Errorf("%.99s: %v has the code %q, which is not on the list", text, e, e.Code)
			}
		}
		if !slices.Contains(got, want) {
			t.Errorf("%.99s: %.20q, want %q", text, got, want)
		}
	}
	// A mistake of ours, which no text can be made to show.
	f := (&Policy{src: newSource(nil)}).Faults()
	f.Err(TextRange{}, errors.New("something else"))
	if list := f.Sorted(); len(list) != 1 || list[0].Code != CodeInternal {
		t.Errorf("an error without a code: %v", list)
	}
	met[CodeInternal] = true
	if list := ParseStored([]byte(namesRefused)).Ignored(); len(list) != 2 || list[0].Code != CodeBadAddress || list[1].Code != CodeRefusedPart {
		t.Errorf("a stored policy with a refused host: %q", list)
	}
	met[CodeRefusedPart] = true
	for _, c := range elsewhere {
		met[c] = true
	}
	for _, c := range Codes() {
		if !met[c] {
			t.Errorf("no case has a fault with the code %s", c)
		}
	}
}

// What a stored policy has of a refused part says why by the same code.
func TestStoredFaultsHaveCodes(t *testing.T) {
	p := ParseStored([]byte(`{"grants": [{"src": ["*"], "dst": ["app"], "ip": ["tcp:0"]}]}`))
	if list := p.Ignored(); len(list) != 1 || list[0].Code != CodeBadPort {
		t.Errorf("%v, want one with the code %q", list, CodeBadPort)
	}
}
