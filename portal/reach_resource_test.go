package portal

import (
	"net/netip"
	"testing"

	"vpnd/acl/language"
	"vpnd/acl/rules"
)

// A resource is shown by its title, with what opens it; what is shut has no link.
func TestReachOfResources(t *testing.T) {
	p, err := language.Parse([]byte(`{"resources": {
		"wiki": {"to": "http://localhost:3000", "title": "Team <wiki>", "note": "Ask Erin."},
		"tools": {"to": "http://10.6.0.3:8443", "port": 8080}, "db": {"to": "10.6.0.2:5432"}, "git": {"to": "10.6.0.4:22"},
		"files": {"to": "nas.lan", "ports": ["tcp:445", "udp:137"]}, "dns": {"to": "10.6.0.5", "ports": ["udp:53"]}, "x": {"to": "10.6.0.6:7000"}}}`))
	if err != nil {
		t.Fatal(err)
	}
	var reaches []rules.Reach
	for i, name := range p.Resources() {
		for _, s := range p.Resource(name).Ports {
			reaches = append(reaches, rules.Reach{Name: name, Resource: true, Prefix: netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 77, 128, byte(i + 1)}), 32),
				Proto: s.Proto, First: s.First, Last: s.Last, Verdict: rules.Verdict{Allow: true}})
		}
	}
	open, _, _ := reachViews(reaches)
	describe(open, p, true)
	want := map[string][2]string{
		"wiki": {"http://10.77.128.6/", ""}, "tools": {"http://10.77.128.5:8080/", ""}, "db": {"", "psql -h 10.77.128.1"}, "git": {"", "ssh 10.77.128.4"},
		"files": {"", "smb://10.77.128.3"}, "dns": {"", ""}, "x": {"", "10.77.128.7:7000"},
	}
	for _, v := range open {
		if got := [2]string{v.Link, v.Way}; got != want[v.Name] {
			t.Errorf("%s is opened by %q, want %q", v.Name, got, want[v.Name])
		}
		if v.Name == "wiki" && (v.Title != "Team <wiki>" || v.Note != "Ask Erin.") {
			t.Errorf("the wiki is %+v", v)
		}
	}
	describe(open, nil, true) // a policy that is not known
	shut, _, _ := reachViews(reaches)
	describe(shut, p, false)
	for _, v := range shut {
		if v.Link+v.Way != "" {
			t.Errorf("%s is shut and leads to %s%s", v.Name, v.Link, v.Way)
		}
	}
}
