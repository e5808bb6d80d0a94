package review_test

import (
	"fmt"
	"runtime"
	"strings"
	"testing"

	"vpnd/acl/acltest"
	"vpnd/acl/language"
	"vpnd/acl/review"
	"vpnd/acl/rules"
)

// hostile is a text of at most a megabyte that is meant to hurt.
type hostile struct {
	name, text string
	refused    string // part of the fault; "": it is a policy, and compiles
}

func hostiles() []hostile {
	const size = 1 << 20
	repeat := func(head, piece, tail string) string {
		var b strings.Builder
		b.WriteString(head)
		for i := 0; b.Len() < size-len(piece)-len(tail)-10; i++ {
			b.WriteString(strings.ReplaceAll(piece, "#", fmt.Sprint(i)))
		}
		return b.String() + tail
	}
	return []hostile{
		{"brackets", strings.Repeat("[", size), "nested brackets"},
		{"braces", strings.Repeat(`{"a":`, size/5), "nested brackets"},
		{"quotes", strings.Repeat(`"`, size), "not HuJSON"},
		{"comment", `{}/*` + strings.Repeat("*", size), "not HuJSON"},
		{"one line", strings.Repeat("x", size), "not HuJSON"},
		{"zeros", "[" + strings.Repeat("0,", size/2) + "]", "values"},
		{"faults", repeat(`{"grants": [`, `7,`, `]}`), "more than 400000 values"},
		{"unknown", repeat(`{"x": 1`, `, "x#": 1`, `}`), "faults more"},
		{"unknown groups", repeat(`{"groups": {"group:g": []}, "grants": [{"src": ["group:x"`, `, "group:x#"`, `], "dst": [], "ip": []}]}`), "faults more"},
		{"grants", repeat(`{"grants": [`, `{"src":["a#"],"dst":["*"],"ip":["#"]},`, `]}`), "more than 10000 entries"},
		{"ports", hostileList(`{"grants": [{"src": ["*"], "dst": ["*"], "ip": ["1"`, `]}]}`, 60_000, func(i int) string { return fmt.Sprintf("tcp:%d", 65535-i) }), ""},
		{"prefixes", hostileList(`{"grants": [{"src": ["*"], "ip": ["*"], "dst": ["11.0.0.0/8"`, `]}]}`, 60_000, func(i int) string { return fmt.Sprintf("11.%d.%d.0/24", i%256, i/256) }), ""},
		{"far prefixes", hostileList(`{"grants": [{"src": ["*"], "ip": ["*"], "dst": ["::/0"`, `]}]}`, 40_000, func(i int) string { return fmt.Sprintf("%x::1", i+1) }), ""},
		{"nested ranges", hostileRanges(9000), ""},
		{"hosts", hostileHosts(9000), "up to here the policy takes"},
		{"chain", repeat(`{"groups": {"group:g": []`, `, "group:g#": ["group:g", "u#"]`, `}}`), ""},
		{"groups in all", hostileGroups(), "members in all"},
		{"zones", repeat(`{"grants": [{"src": ["*"], "dst": ["*"], "ip": ["*"], "hours": ["Mon 00:00-01:00 UTC"`, `, "Mon 00:00-01:00 Etc/No#"`, `]}]}`), "faults more"},
		{"ipset", repeat(`{"ipsets": {"ipset:a": ["0.0.0.0/0"`, `, "remove 10.0.0.0/8", "add 10.1.0.0/16"`, `]}}`), ""},
		{"tests", repeat(`{"grants": [{"src": ["*"], "dst": ["*"], "ip": ["*"]}], "tests": [{"src": ["*"`, `, "u#"`, `], "accept": ["*:1-3"], "deny": ["app:22"]}]}`), "the test fails"},
	}
}

// compileHostile parses and compiles a text.
func compileHostile(text string) error {
	p, err := language.Parse([]byte(text))
	if err != nil {
		return err
	}
	if _, list := review.Check(p, acltest.Small, []rules.Subject{acltest.Device("a/b", "a1", nil, "10.77.0.2", "fd77::2")}); list.Fatal() {
		return list
	}
	return nil
}

// TestHostile: a hostile text is refused for the right reason, or compiled, and takes a
// bounded amount of memory. BenchmarkHostile says how long that takes.
func TestHostile(t *testing.T) {
	const most = 256 << 20 // bytes allocated in all, so that a peak is below it
	for _, h := range hostiles() {
		t.Run(h.name, func(t *testing.T) {
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			err := compileHostile(h.text)
			runtime.ReadMemStats(&after)
			if said := fmt.Sprint(err); (err == nil) != (h.refused == "") || !strings.Contains(said, h.refused) {
				t.Errorf("want %q, got %.300s", h.refused, said)
			}
			if n := after.TotalAlloc - before.TotalAlloc; n > most {
				t.Errorf("it takes %d bytes", n)
			}
		})
	}
}

func BenchmarkHostile(b *testing.B) {
	for _, h := range hostiles() {
		b.Run(strings.ReplaceAll(h.name, " ", "-"), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				compileHostile(h.text)
			}
		})
	}
}

func hostileList(head, tail string, n int, element func(int) string) string {
	var b strings.Builder
	b.WriteString(head)
	for i := range n {
		fmt.Fprintf(&b, ", %q", element(i))
	}
	return b.String() + tail
}

func hostileRanges(n int) string {
	var b strings.Builder
	b.WriteString(`{"grants": [`)
	for i := range n {
		fmt.Fprintf(&b, `{"src":["u%d"],"dst":["10.%d.0.0/%d"],"ip":["tcp:%d-%d","udp:%d"]},`, i, i%2, 16-8*(1-i%2), i+1, 65535-i, i+1)
	}
	return b.String() + `]}`
}

func hostileHosts(n int) string {
	var b strings.Builder
	b.WriteString(`{"grants": [`)
	for i := range n {
		fmt.Fprintf(&b, `{"src":["u%d"],"dst":["10.%d.%d.%d","::/%d"],"ip":["%d"]},`, i, i%200, i/200, i%7, i%128, i+1)
	}
	return b.String() + `]}`
}

func hostileGroups() string {
	var b strings.Builder
	b.WriteString(`{"groups": {"group:a0": ["u"`)
	for i := range 50_000 {
		fmt.Fprintf(&b, `,"u%d"`, i)
	}
	b.WriteString("]")
	for i := range 9000 {
		fmt.Fprintf(&b, `,"group:b%d": ["group:a0"]`, i)
	}
	return b.String() + `}}`
}
