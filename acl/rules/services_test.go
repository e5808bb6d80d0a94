package rules_test

import (
	"net/netip"
	"strings"
	"testing"

	"vpnd/acl/acltest"
	"vpnd/acl/language"
	"vpnd/acl/rules"
)

func TestServiceAddresses(t *testing.T) {
	const resources = `{"resources": {"db": {"to": "10.6.0.2:5432"}}, "hosts": {"far": "10.77.200.0/24"}, "ipsets": {"ipset:far": ["far"], "ipset:more": ["10.0.0.0/8", "ipset:far"]}, "grants": [`
	for _, test := range []struct{ grant, want string }{
		{`{"src": ["*"], "dst": ["10.77.128.1"], "ip": ["*"]}`, `10.77.128.1 is the address of the resource "db": write its name`},
		{`{"src": ["*"], "dst": ["fd77::8000:0:0:1"], "ip": ["*"]}`, `is the address of the resource "db"`},
		{`{"src": ["*"], "dst": ["far"], "ip": ["*"]}`, `far lies in 10.77.128.0/17, the half of the tunnel's network that is kept for resources`},
		{`{"src": ["*"], "dst": ["ipset:far"], "ip": ["*"]}`, `ipset:far lies in 10.77.128.0/17`},
		{`{"src": ["ipset:more"], "dst": ["app"], "ip": ["*"]}`, `ipset:more lies in 10.77.128.0/17`},
		{`{"src": ["*"], "dst": ["10.77.0.0/16"], "ip": ["*"]}`, ``},
	} {
		p, err := language.Parse([]byte(resources + test.grant + `]}`))
		if err != nil {
			t.Fatal(err)
		}
		_, err = rules.Compile(p, acltest.Small, acltest.Few)
		if (err == nil) != (test.want == "") || err != nil && !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s\ngot  %v\nwant %s", test.grant, err, test.want)
		}
		stored := acltest.Small
		stored.Stored = true
		r, err := rules.Compile(p, stored, acltest.Few)
		if err != nil {
			t.Errorf("stored, it is refused: %v", err)
			continue
		}
		v := r.Verdict(rules.Packet{Src: netip.MustParseAddr("10.77.0.2"), Dst: netip.MustParseAddr("10.77.128.1"), Proto: 6, DstPort: 5432,
			SrcSession: rules.Session{Until: acltest.Now.Add(1e9), Code: acltest.Now}}, acltest.Now)
		if v.Allow {
			t.Errorf("%s opens the resource", test.grant)
		}
	}
}

func TestReachesResources(t *testing.T) {
	p, err := language.Parse([]byte(`{"resources": {"db": {"to": "10.6.0.2:5432"}, "wiki": {"to": "http://localhost:3000"}}, "grants": [
		{"src": ["alice"], "dst": ["db"]}, {"src": ["*"], "dst": ["*"], "ip": ["tcp:80"]}]}`))
	if err != nil {
		t.Fatal(err)
	}
	r, err := rules.Compile(p, acltest.Small, acltest.Few)
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]bool{}
	for _, x := range r.Reaches(netip.MustParseAddr("10.77.0.2"), rules.Session{Until: acltest.Now.Add(1e9), Code: acltest.Now}, acltest.Now) {
		if x.Resource {
			got[x.Name+" "+x.Prefix.Addr().String()+" "+language.SpanText(x.Proto, x.First, x.Last)] = x.Allow
		}
	}
	for _, want := range []string{"db 10.77.128.1 tcp:5432", "wiki 10.77.128.2 tcp:80", "db fd77::8000:0:0:1 tcp:5432", "wiki fd77::8000:0:0:2 tcp:80"} {
		if !got[want] {
			t.Errorf("it does not reach %s: %v", want, got)
		}
	}
	if len(got) != 4 {
		t.Errorf("it reaches %v", got)
	}
}
