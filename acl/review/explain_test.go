package review_test

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"vpnd/acl/acltest"
	"vpnd/acl/language"
	"vpnd/acl/review"
	"vpnd/acl/rules"
)

func TestExplain(t *testing.T) {
	p, err := language.Parse([]byte(`{
"groups": {"group:ops": ["alice"], "group:all": ["group:ops", "bob"]},
"hosts": {"db": "10.1.2.3", "lan": "10.1.0.0/16"},
"tagOwners": {"tag:web": []},
"grants": [
{"src": ["group:all"], "dst": ["lan"], "ip": ["tcp:5432"], "mfa": "15m"},
{"src": ["group:ops"], "dst": ["db"], "ip": ["tcp:22"], "hours": "Sat 08:00-09:00 UTC"},
{"src": ["autogroup:member"], "dst": ["autogroup:self"], "ip": ["tcp:22"]},
{"src": ["*"], "dst": ["tag:web"], "ip": ["tcp:443"], "mfa": "off"},
{"src": ["bob"], "dst": ["app"], "ip": ["tcp:8080"]},
]}`))
	if err != nil {
		t.Fatal(err)
	}
	r, err := rules.Compile(p, acltest.Small, acltest.Few)
	if err != nil {
		t.Fatal(err)
	}
	live := rules.Session{Until: acltest.Now.Add(time.Hour), Code: acltest.Now.Add(-5 * time.Minute)}
	stale := rules.Session{Until: acltest.Now.Add(time.Hour), Code: acltest.Now.Add(-time.Hour)}
	for _, test := range []struct {
		src, dst string
		port     uint16
		session  rules.Session
		peer     rules.Session
		want     []string // in this order
	}{
		{"10.77.0.2", "10.1.2.3", 5432, live, rules.Session{}, []string{"alice/laptop -> db: allowed until 2026-03-04T10:10:00Z\n", "line 6 (", "from group:all through group:ops to lan (10.1.0.0/16), tcp:5432: allowed until", "line 7 (", "but only tcp:22\n"}},
		{"10.77.0.2", "10.1.2.3", 5432, stale, rules.Session{}, []string{"denied: a fresher code is needed", "line 6"}},
		{"10.77.0.2", "10.1.2.3", 5432, rules.Session{}, rules.Session{}, []string{"denied: a code is needed first"}},
		{"10.77.0.2", "10.1.2.3", 22, live, rules.Session{}, []string{"denied: granted at another time only", "line 7", "again from 2026-03-07T08:00:00Z", "line 6", "but only tcp:5432"}},
		{"10.77.0.4", "10.1.2.3", 22, live, rules.Session{}, []string{"bob/phone -> db: denied: no grant", "line 6", "from group:all to lan"}},
		{"10.77.0.2", "10.77.0.3", 22, live, live, []string{"alice/laptop -> alice/phone: allowed", "line 8", "from autogroup:member to autogroup:self"}},
		{"10.77.0.2", "10.77.0.3", 22, live, rules.Session{}, []string{"denied: the device at the other end is not signed in", "line 8"}},
		{"10.77.0.2", "10.77.0.4", 22, live, live, []string{"alice/laptop -> bob/phone: denied: no grant"}},
		{"10.77.0.2", "10.77.0.5", 443, rules.Session{}, rules.Session{}, []string{"alice/laptop -> web1: allowed\n", "from * to tag:web"}},
		{"fd77::4", "fd77::1", 8080, live, rules.Session{}, []string{"bob/phone -> app: allowed until 2026-03-04T11:00:00Z", "line 10", "from bob to app (fd77::1)"}},
		{"10.77.0.99", "10.1.2.3", 5432, live, rules.Session{}, []string{"10.77.0.99 -> db: denied: no grant"}},
	} {
		packet := rules.Packet{Src: netip.MustParseAddr(test.src), Dst: netip.MustParseAddr(test.dst), Proto: language.ProtoTCP, DstPort: test.port, SrcSession: test.session, DstSession: test.peer}
		e := review.Explain(r, packet, acltest.Now)
		if e.Verdict != r.Verdict(packet, acltest.Now) {
			t.Errorf("%+v: Explain and Verdict part", test)
		}
		if len(e.Covering) > 0 && e.Covering[0].Verdict != e.Verdict {
			t.Errorf("%+v: the first step %+v is not what decided, %+v", test, e.Covering[0].Verdict, e.Verdict)
		}
		rest := e.String()
		for _, w := range test.want {
			_, after, ok := strings.Cut(rest, w)
			if !ok {
				t.Errorf("%s -> %s:%d: %q is not, or not in order, in\n%s", test.src, test.dst, test.port, w, e)
				break
			}
			rest = after
		}
	}
}

// TestReaches lists what a person sees in the portal.
func TestReaches(t *testing.T) {
	p, err := language.Parse([]byte(`{
"hosts": {"db": "10.1.2.3"}, "tagOwners": {"tag:web": []},
"grants": [
{"src": ["alice"], "dst": ["db"], "ip": ["tcp:5432", "tcp:1-100"], "mfa": "15m"},
{"src": ["alice"], "dst": ["db"], "ip": ["tcp:50-200"]},
{"src": ["autogroup:member"], "dst": ["app", "tag:web"], "ip": ["tcp:443"]},
{"src": ["bob"], "dst": ["db"], "ip": ["tcp:9"]},
]}`))
	if err != nil {
		t.Fatal(err)
	}
	r, err := rules.Compile(p, acltest.Small, acltest.Few)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, x := range r.Reaches(netip.MustParseAddr("fd77::2"), rules.Session{Until: acltest.Now.Add(time.Hour), Code: acltest.Now.Add(-time.Hour)}, acltest.Now) {
		where := x.Name
		if x.Prefix.IsValid() {
			where += " " + language.PrefixText(x.Prefix)
		}
		got = append(got, where+" "+language.SpanText(x.Proto, x.First, x.Last)+" "+x.Reason.String())
	}
	want := []string{
		"app 10.77.0.1 tcp:443 allowed",
		"app fd77::1 tcp:443 allowed",
		"db 10.1.2.3 tcp:1-49 a fresher code is needed: sign in again",
		"db 10.1.2.3 tcp:50-200 allowed",
		"db 10.1.2.3 tcp:5432 a fresher code is needed: sign in again",
		"tag:web tcp:443 allowed",
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if list := r.Reaches(netip.MustParseAddr("10.77.0.99"), rules.Session{}, acltest.Now); list != nil {
		t.Errorf("nobody reaches %v", list)
	}
}
