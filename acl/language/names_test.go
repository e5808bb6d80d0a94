package language

import (
	"slices"
	"testing"
)

// A name is warned about when it is a host's and a user's, or nobody's, and only then.
func TestCheckNames(t *testing.T) {
	p, err := Parse([]byte(`{
	"hosts": {"nas": "10.1.2.3", "Alice": "10.1.2.4"},
	"groups": {"group:ops": ["carol", "dave"]},
	"grants": [
		{"src": ["carol", "bob", "group:ops", "*"], "dst": ["nas", "Alice", "carol@", "*"], "ip": ["*"]},
	],
}`))
	if err != nil {
		t.Fatal(err)
	}
	f := p.Faults()
	p.CheckNames(f, map[string]bool{"alice": true, "carol": true}, true)
	type told struct {
		code Code
		text string
	}
	var got []told
	for _, e := range f.Sorted() {
		got = append(got, told{e.Code, e.Text})
	}
	want := []told{{CodeUnknownUser, `"dave"`}, {CodeUnknownUser, `"bob"`}, {CodeHostOrUser, `"Alice"`}}
	if !slices.Equal(got, want) {
		t.Errorf("told of %v, want %v", got, want)
	}
}
