package language

import (
	"os"
	"slices"
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

// Every fault of these has a code of the list, and the one that is meant.
func TestFaultsHaveCodes(t *testing.T) {
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
		`{"hosts": {"db": "10.1.2.300"}}`:      CodeBadAddress,
		`{"grants": [{"src": ["group:x"], "dst": ["*"], "ip": ["*"]}]}`:                       CodeUnknownGroup,
		`{"grants": [{"src": ["tag:x"], "dst": ["*"], "ip": ["*"]}]}`:                         CodeUnknownTag,
		`{"grants": [{"src": ["autogroup:self"], "dst": ["*"], "ip": ["*"]}]}`:                CodeSelfAsSource,
		`{"grants": [{"src": ["autogroup:tagged"], "dst": ["autogroup:self"], "ip": ["*"]}]}`: CodeSelfWithoutDevices,
		`{"grants": [{"src": ["*"], "dst": ["app"], "ip": ["tcp:0"]}]}`:                       CodeBadPort,
		`{"grants": [{"src": ["*"], "dst": ["app"], "ip": ["tpc:1"]}]}`:                       CodeBadProtocol,
		`{"grants": [{"src": ["*"], "dst": ["app"], "ip": ["*"], "mfa": "soon"}]}`:            CodeBadMFA,
		`{"grants": [{"src": ["*"], "dst": ["app"], "ip": ["*"], "hours": ["Mon"]}]}`:         CodeBadHours,
		`{"grants": [{"src": ["*"], "dst": ["app"], "ip": ["*"], "expires": "soon"}]}`:        CodeBadExpires,
		`{"grants": [{"src": ["*"]}]}`:                                                        CodeMissingKey,
		`{"tests": [{}]}`:                                                                     CodeTestsNothing,
	} {
		_, err := Parse([]byte(text))
		list, ok := err.(ErrorList)
		if !ok {
			t.Errorf("%s: %v", text, err)
			continue
		}
		var got []Code
		for _, e := range list {
			got = append(got, e.Code)
			if !slices.Contains(Codes(), e.Code) {
				t.Errorf("%s: %v has the code %q, which is not on the list", text, e, e.Code)
			}
		}
		if !slices.Contains(got, want) {
			t.Errorf("%s: %q of %v, want %q", text, got, err, want)
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
