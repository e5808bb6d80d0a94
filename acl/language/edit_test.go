package language

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/tailscale/hujson"
)

// Layouts that people write: the text of a group's list, and what it is after "bob" was
// added, or removed.
var addTests = []struct{ before, after string }{
	{`[]`, `["bob"]`},
	{`[ ]`, `["bob"]`},
	{"[\n\t\t]", "[\n\t\t\t\"bob\",\n\t\t]"},
	{"[\n\t\t\t// nobody yet\n\t\t]", "[\n\t\t\t// nobody yet\n\t\t\t\"bob\",\n\t\t]"},
	{`[/* nobody yet */]`, `[/* nobody yet */"bob"]`},
	{`["alice"]`, `["alice", "bob"]`},
	{`["alice",]`, `["alice", "bob",]`},
	{`[ "alice" ]`, `[ "alice", "bob" ]`},
	{`["alice","carol"]`, `["alice","carol","bob"]`},
	{`["alice",  "carol"]`, `["alice",  "carol",  "bob"]`},
	{`["alice" /* boss */]`, `["alice" /* boss */, "bob"]`},
	{`["alice", /* boss */]`, `["alice", /* boss */ "bob",]`},
	{`["alice" /* boss */,]`, `["alice" /* boss */, "bob",]`},
	{"[\n\t\t\t\"alice\",\n\t\t]", "[\n\t\t\t\"alice\",\n\t\t\t\"bob\",\n\t\t]"},
	{"[\n\t\t\t\"alice\"\n\t\t]", "[\n\t\t\t\"alice\",\n\t\t\t\"bob\"\n\t\t]"},
	{"[\n\t\t\t\"alice\", // the boss\n\t\t]", "[\n\t\t\t\"alice\", // the boss\n\t\t\t\"bob\",\n\t\t]"},
	{"[\n\t\t\t\"alice\" // the boss\n\t\t]", "[\n\t\t\t\"alice\", // the boss\n\t\t\t\"bob\"\n\t\t]"},
	{"[\n\t\t\t\"alice\", // the boss\n\t\t\t// that is all\n\t\t]", "[\n\t\t\t\"alice\", // the boss\n\t\t\t\"bob\",\n\t\t\t// that is all\n\t\t]"},
	{"[\r\n\t\t\t\"alice\", // the boss\r\n\t\t]", "[\r\n\t\t\t\"alice\", // the boss\r\n\t\t\t\"bob\",\r\n\t\t]"},
	{"[\n\t\t\t\"alice\", /* the\n boss */\n\t\t]", "[\n\t\t\t\"alice\", /* the\n boss */\n\t\t\t\"bob\",\n\t\t]"},
	{"[\"alice\", \"carol\",\n\t\t \"dave\", \"erin\"]", "[\"alice\", \"carol\",\n\t\t \"dave\", \"erin\", \"bob\"]"},
	{"[\"alice\", \"carol\" // two\n\t\t]", "[\"alice\", \"carol\", // two\n\t\t\t\"bob\"\n\t\t]"},
	{"[\n\t\t\t\"alice\"]", "[\n\t\t\t\"alice\", \"bob\"]"},
	{"[\"alice\"\n\t\t]", "[\"alice\", \"bob\"\n\t\t]"},
}

var removeTests = []struct{ before, after string }{
	{`["bob"]`, `[]`},
	{`["alice", "bob"]`, `["alice"]`},
	{`["bob", "alice"]`, `["alice"]`},
	{`["alice", "bob", "carol"]`, `["alice", "carol"]`},
	{`["alice", "BOB", "carol", "bob@"]`, `["alice", "carol"]`},
	{`["alice", "bob",]`, `["alice",]`},
	{`["alice", /* intern */ "bob"]`, `["alice" /* intern */ ]`},
	{"[\n\t\t\t\"alice\", // the boss\n\t\t\t\"bob\", // intern\n\t\t\t\"carol\",\n\t\t]", "[\n\t\t\t\"alice\", // the boss\n\t\t\t\"carol\",\n\t\t]"},
	{"[\n\t\t\t// on call\n\t\t\t\"bob\",\n\t\t\t\"carol\",\n\t\t]", "[\n\t\t\t// on call\n\t\t\t\"carol\",\n\t\t]"},
	{"[\n\t\t\t\"alice\", // the boss\n\t\t\t\"bob\" // intern\n\t\t]", "[\n\t\t\t\"alice\" // the boss\n\t\t]"},
	{"[\n\t\t\t\"bob\", // intern\n\t\t\t// that is all\n\t\t]", "[\n\t\t\t// that is all\n\t\t]"},
	{"[\n\t\t\t/* a\n */ \"bob\",\n\t\t]", "[\n\t\t\t/* a\n */ \n\t\t]"},
	{"[\r\n\t\t\t\"alice\",\r\n\t\t\t\"bob\",\r\n\t\t]", "[\r\n\t\t\t\"alice\",\r\n\t\t]"},
	{"[\"alice\", \"bob\",\n\t\t \"carol\"]", "[\"alice\",\n\t\t \"carol\"]"},
	{"[\"alice\",\n\t\t \"bob\", \"carol\"]", "[\"alice\",\n\t\t \"carol\"]"},
}

// around is a policy around a group's list.
func around(list string) []byte {
	return []byte("// ours\n{\n\t\"groups\": {\n\t\t\"group:ops\": " + list + ", // ops\n\t\t\"group:all\" : [\"group:ops\",\"dave\"],\n\t},\n\t\"hosts\": {\"db\":\"10.1.2.3\"}, }\n// end\n")
}

func TestAddMember(t *testing.T) {
	for _, test := range addTests {
		got, err := AddMember(around(test.before), "group:ops", "bob")
		if err != nil || string(got) != string(around(test.after)) {
			t.Errorf("%s\ngot\n%s\nwant\n%s\n%v", test.before, got, around(test.after), err)
			continue
		}
		// What was added is taken out again without a trace, unless it began the list.
		back, err := RemoveMember(got, "group:ops", "bob")
		if err != nil || strings.Contains(test.before, "\"") && !strings.Contains(test.before, "/*") && string(back) != string(around(test.before)) {
			t.Errorf("added and removed:\n%s\nwas\n%s\n%v", back, around(test.before), err)
		}
	}
}

func TestRemoveMember(t *testing.T) {
	for _, test := range removeTests {
		got, err := RemoveMember(around(test.before), "group:ops", "bob")
		if err != nil || string(got) != string(around(test.after)) {
			t.Errorf("%s\ngot\n%s\nwant\n%s\n%v", test.before, got, around(test.after), err)
		}
	}
}

func TestAddGroup(t *testing.T) {
	for _, test := range []struct{ before, after string }{
		{"", "{\n\t\"groups\": {\"group:ops\": []},\n}\n"},
		{"{}", `{"groups": {"group:ops": []}}`},
		{"{\n  \"hosts\": {}\n}\n", "{\n  \"hosts\": {},\n  \"groups\": {\"group:ops\": []}\n}\n"},
		{`{"groups": {}}`, `{"groups": {"group:ops": []}}`},
		{`{"groups": {"group:a": [ ]}}`, `{"groups": {"group:a": [ ], "group:ops": []}}`},
		{"{\n\t\"groups\": {\n\t\t\"group:a\" : [], // a\n\t}, // all\n}", "{\n\t\"groups\": {\n\t\t\"group:a\" : [], // a\n\t\t\"group:ops\": [],\n\t}, // all\n}"},
		{"{\n\t\"groups\": {\n\t\t\"group:a\": [] // a\n\t}\n}", "{\n\t\"groups\": {\n\t\t\"group:a\": [], // a\n\t\t\"group:ops\": []\n\t}\n}"},
		{"{\n\t\"groups\": {\n\t\t// none\n\t},\n}", "{\n\t\"groups\": {\n\t\t// none\n\t\t\"group:ops\": [],\n\t},\n}"},
	} {
		if got, err := AddGroup([]byte(test.before), "group:ops"); err != nil || string(got) != test.after {
			t.Errorf("%s\ngot\n%s\nwant\n%s\n%v", test.before, got, test.after, err)
		}
	}
	if _, err := AddGroup(around("[]"), "group:ops"); !errors.Is(err, ErrGroup) {
		t.Error(err)
	}
	for _, name := range []string{"ops", "group:", "group:a b", ""} {
		if _, err := AddGroup([]byte("{}"), name); err == nil {
			t.Errorf("%q is a group", name)
		}
	}
	if _, err := AddMember(nil, "group:ops", "bob"); !errors.Is(err, ErrNoGroup) {
		t.Error(err)
	}
}

func TestEditRefuses(t *testing.T) {
	text := around(`["alice"]`)
	for _, test := range []struct {
		edit          func([]byte, string, string) ([]byte, error)
		group, member string
		want          error
		says          string
	}{
		{AddMember, "group:opps", "bob", ErrNoGroup, `did you mean "group:ops"?`},
		{RemoveMember, "group:none", "bob", ErrNoGroup, ""},
		{AddMember, "group:ops", "ALICE", ErrMember, "alice is a member already of group:ops"},
		{RemoveMember, "group:ops", "bob", ErrNoMember, ""},
		{RemoveMember, "group:all", "alice", ErrNoMember, "group:all through group:ops"},
		{AddMember, "group:ops", "group:all", nil, ""}, // a circle
		{AddMember, "group:ops", "group:none", nil, "group:none"},
		{AddMember, "group:ops", "a b", nil, "not a user's name"},
		{AddMember, "group:ops", "tag:web", nil, "not a user's name"},
	} {
		_, err := test.edit(text, test.group, test.member)
		if err == nil || test.want != nil && !errors.Is(err, test.want) || !strings.Contains(err.Error(), test.says) {
			t.Errorf("%s %s: %v", test.group, test.member, err)
		}
	}
	if _, err := AddMember([]byte(`{"groups": {`), "group:ops", "bob"); err == nil {
		t.Error("no policy at all is edited")
	}
	if got, err := AddMember(around(`[]`), "group:all", "Bob@"); err != nil || !bytes.Contains(got, []byte(`"dave","Bob@"]`)) {
		t.Errorf("%s %v", got, err)
	}
}

// comments are all comments of a text, in order.
func comments(text []byte) (list []string) {
	for i := 0; i < len(text); i++ {
		switch {
		case text[i] == '"':
			for i++; text[i] != '"'; i++ {
				if text[i] == '\\' {
					i++
				}
			}
		case bytes.HasPrefix(text[i:], []byte("//")):
			end := i + bytes.IndexByte(append(slices.Clone(text[i:]), '\n'), '\n')
			list = append(list, string(text[i:end]))
			i = end - 1
		case bytes.HasPrefix(text[i:], []byte("/*")):
			end := i + 4 + bytes.Index(text[i+2:], []byte("*/"))
			list = append(list, string(text[i:end]))
			i = end - 1
		}
	}
	return list
}

// FuzzEditGroup: an edited policy is a policy, which differs by the member alone; all
// comments are kept by an addition, and by a removal all but those of its line.
func FuzzEditGroup(f *testing.F) {
	for _, test := range slices.Concat(addTests, removeTests) {
		f.Add(around(test.before), "group:ops", "bob")
		f.Add(around(test.before), "group:all", "erin")
	}
	f.Add([]byte(DefaultPolicy()), "group:ops", "bob")
	f.Fuzz(func(t *testing.T, text []byte, group, member string) {
		if got, err := AddGroup(text, group); err == nil {
			p, err := Parse(got)
			if err != nil || !slices.Equal(comments(text), comments(got)) {
				t.Fatalf("a group is added: %v\n%s", err, got)
			}
			if members, ok := p.Members(group); !ok || len(members) > 0 {
				t.Fatalf("it is not there:\n%s", got)
			}
		}
		for name, edit := range map[string]func([]byte, string, string) ([]byte, error){"add": AddMember, "remove": RemoveMember} {
			got, err := edit(text, group, member)
			if err != nil {
				continue
			}
			if _, err := Parse(got); err != nil {
				t.Fatalf("%s: no policy: %v\n%s", name, err, got)
			}
			before, after := plainPolicy(t, text), plainPolicy(t, got)
			was, is := takeGroup(before, group), takeGroup(after, group)
			if x, y := fmt.Sprint(before), fmt.Sprint(after); x != y {
				t.Fatalf("%s: the rest differs:\n%s\n%s", name, text, got)
			}
			a, b := comments(text), comments(got)
			if name == "add" {
				if !slices.Equal(append(was, member), is) || !slices.Equal(a, b) {
					t.Fatalf("added %q to %q: %q; comments %q, were %q", member, was, is, b, a)
				}
				continue
			}
			kept := slices.DeleteFunc(slices.Clone(was), func(s string) bool {
				u, err := parseUser(s)
				m, err2 := parseUser(member)
				return s == member || err == nil && err2 == nil && u == m
			})
			if !slices.Equal(kept, is) || !within(b, a) {
				t.Fatalf("removed %q from %q: %q; comments %q, were %q", member, was, is, b, a)
			}
		}
	})
}

// within tells whether a list is another one with some left out.
func within(part, whole []string) bool {
	for _, s := range whole {
		if len(part) > 0 && part[0] == s {
			part = part[1:]
		}
	}
	return len(part) == 0
}

func plainPolicy(t *testing.T, text []byte) (v map[string]any) {
	b, err := hujson.Standardize(slices.Clone(text))
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(b, &v); err != nil {
		t.Fatal(err)
	}
	return v
}

// takeGroup takes a group out of a decoded policy.
func takeGroup(v map[string]any, group string) (members []string) {
	groups := v["groups"].(map[string]any)
	for _, m := range groups[group].([]any) {
		members = append(members, m.(string))
	}
	delete(groups, group)
	return members
}
