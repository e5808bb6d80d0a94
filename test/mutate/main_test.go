package main

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

// Every kind of change is made, where it is one of a decision.
func TestMutants(t *testing.T) {
	const source = `package p
func f(n int, ok bool) error {
	if n+2 >= 7 && !ok { return errLate }
	switch n { case 0: return nil }
	list[3] = true
	g := func() int { return n }
	for range 9 { return peers.ErrGone }
	return g()
}
func String() bool { return true }
`
	found, err := mutants("f.go", []byte(source))
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, m := range found {
		if source[m.Offset:m.Offset+len(m.From)] != m.From {
			t.Errorf("%v is not at %d", m, m.Offset)
		}
		if line := strings.TrimSpace(strings.Split(source, "\n")[m.Line-1]); m.Text != line {
			t.Errorf("%v has the line %q", m, m.Text)
		}
		got = append(got, m.String())
	}
	slices.Sort(got)
	want := []string{
		"f.go:3  ! -> nothing", "f.go:3  && -> ||", "f.go:3  2 -> 1", "f.go:3  2 -> 3", "f.go:3  7 -> 6",
		"f.go:3  7 -> 8", "f.go:3  >= -> >", "f.go:3  errLate -> nil", "f.go:4  0 -> 1", "f.go:5  true -> false",
		"f.go:7  peers.ErrGone -> nil",
	}
	if !slices.Equal(got, want) {
		t.Errorf("the mutants are\n%s", strings.Join(got, "\n"))
	}
	other, err := mutants("f.go", []byte("\n"+source))
	if err != nil {
		t.Fatal(err)
	}
	keys := map[string]bool{}
	for _, m := range append(found, other...) {
		keys[m.key()] = true
	}
	if len(keys) != 2*len(found) {
		t.Errorf("%d keys of %d mutants of two texts", len(keys), 2*len(found))
	}
}

// One that does not build is no question to the tests: another is drawn in its place.
func TestEachDrawsAnother(t *testing.T) {
	var all []mutant
	for i := range 20 {
		all = append(all, mutant{Line: i})
	}
	for _, parallel := range []int{1, 3} {
		for n, want := range map[int]int{5: 8, 17: 20, 18: 20} { // 0, 3 and 6 do not build
			tried := map[int]end{}
			each(all, n, parallel, func(m mutant) mutant {
				m.End = killed
				if m.Line%3 == 0 && m.Line < 9 {
					m.End = unbuilt
				}
				return m
			}, func(m mutant) { tried[m.Line] = m.End })
			built := 0
			for i := range want {
				if tried[i] == killed {
					built++
				}
			}
			if len(tried) != want || built != min(n, 17) {
				t.Errorf("%d of them, %d at a time: %d tried, %d of them built: %v", n, parallel, len(tried), built, fmt.Sprint(tried))
			}
		}
	}
}

// Every equivalent is of a line that there is, and says why no test can notice it.
func TestEquivalents(t *testing.T) {
	t.Chdir("../..")
	all, err := candidates()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := unlessEquivalent(all); err != nil {
		t.Error(err)
	}
	for _, e := range equivalents {
		if e.why == "" {
			t.Errorf("%s: %s: why?", e.file, e.line)
		}
	}
}
