package review_test

import (
	"strings"
	"testing"

	"vpnd/acl/acltest"
	"vpnd/acl/language"
	"vpnd/acl/review"
	"vpnd/acl/rules"
)

func TestChanges(t *testing.T) {
	const head = `{"hosts": {"db": "10.1.2.3", "wiki": "10.1.2.4"}, "grants": [`
	compile := func(grants string) *rules.Ruleset {
		t.Helper()
		p, err := language.Parse([]byte(head + grants + "]}"))
		if err != nil {
			t.Fatal(err)
		}
		r, err := rules.Compile(p, acltest.Small, acltest.Few)
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	for _, test := range []struct{ before, after, want string }{
		{``, ``, ``},
		{``, `{"src": ["bob"], "dst": ["db"], "ip": ["tcp:22", "tcp:443", "udp:53-60", "icmp"]}`, `bob gains db icmp tcp:22 tcp:443 udp:53-60`},
		{``, `{"src": ["bob"], "dst": ["app"], "ip": ["icmp"]}`, `bob gains app icmp`},
		{`{"src": ["bob"], "dst": ["db", "wiki"], "ip": ["*", "gre"]}`, ``, `bob loses db wiki * 47:*`},
		{`{"src": ["bob"], "dst": ["db"], "ip": ["tcp:1-9"]}`, `{"src": ["bob"], "dst": ["db"], "ip": ["tcp:1-9"], "mfa": "off"}`, `bob changes db tcp:1-9`},
	} {
		var lines []string
		for _, c := range review.Changes(review.Diff(compile(test.before), compile(test.after))) {
			words := append([]string{}, names(c.Sources)...)
			words = append(words, c.Effect())
			words = append(words, names(c.Destinations)...)
			lines = append(lines, strings.Join(append(words, c.Spans...), " "))
		}
		if got := strings.Join(lines, "\n"); got != test.want {
			t.Errorf("%s -> %s:\ngot  %s\nwant %s", test.before, test.after, got, test.want)
		}
	}
}

func names(places []review.Place) (out []string) {
	for _, p := range places {
		out = append(out, p.Name)
	}
	return out
}
