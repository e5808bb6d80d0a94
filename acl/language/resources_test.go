package language

import (
	"strings"
	"testing"
)

func TestResources(t *testing.T) {
	for _, test := range []struct{ text, want string }{
		{`{"to": "10.6.0.2:5432"}`, `10.6.0.2:5432 at tcp:5432`},
		{`{"to": "[fd00::1]:443"}`, `[fd00::1]:443 at tcp:443`},
		{`{"to": "http://localhost:3000"}`, `http://localhost:3000 at tcp:80`},
		{`{"to": "http://localhost:3000", "port": 3000}`, `http://localhost:3000 at tcp:3000`},
		{`{"to": "http://WIKI.lan"}`, `http://wiki.lan:80 at tcp:80`},
		{`{"to": "http://wiki.lan:8080/"}`, `http://wiki.lan:8080 at tcp:80`},
		{`{"to": "nas.lan.", "ports": ["tcp:445"]}`, `nas.lan:445 at tcp:445`},
		{`{"to": "nas.lan", "ports": ["tcp:445", "53", "udp:137-138"]}`, `nas.lan at tcp:53, tcp:445, udp:53, udp:137-138`},
		{`{"to": "10.6.0.3:8443", "port": 443}`, `10.6.0.3:8443 at tcp:443`},
		{`{"to": "unix:/run/a.sock", "port": 80}`, `unix:/run/a.sock at tcp:80`},
		{`{"to": "127.0.0.1:25", "from": "gateway"}`, `127.0.0.1:25 at tcp:25`},

		{`{"to": "10.6.0.2"}`, `"10.6.0.2" names no port: write one behind it like "10.6.0.2:443", or "ports"`},
		{`{"to": "10.6.0.2:5432", "ports": ["tcp:5433"]}`, `the port stands in "to" already`},
		{`{"to": "10.6.0.2", "ports": ["tcp:1", "tcp:2"], "port": 3}`, `"port" is for a target with one port`},
		{`{"to": "10.6.0.2", "ports": []}`, `no ports are given`},
		{`{"to": "10.6.0.2", "ports": ["icmp"]}`, `"icmp" cannot be published`},
		{`{"to": "10.6.0.2", "ports": ["sctp:1"]}`, `"sctp:1" cannot be published`},
		{`{"to": "10.6.0.2", "ports": ["udp:53"], "proxy": "v2"}`, `the PROXY protocol tells who calls by TCP alone`},
		{`{"to": "10.6.0.2:1", "proxy": "v1"}`, `the proxy "v1" is not supported`},
		{`{"to": "10.6.0.2:1", "from": "me"}`, `the source "me" is not supported`},
		{`{"to": "unix:/run/a.sock"}`, `a resource at a unix socket needs "port"`},
		{`{"to": "unix:/run/a.sock", "ports": ["tcp:1"]}`, `a unix socket has no ports`},
		{`{"to": "unix:run/a.sock", "port": 1}`, `not the path of a socket`},
		{`{"to": "unix:/run/../a.sock", "port": 1}`, `not the path of a socket`},
		{`{"to": "unix:/run/a.sock", "port": 1, "from": "gateway"}`, `leave "from" out`},
		{`{"to": "https://wiki.lan"}`, `"https://" is not supported: for any protocol but http write HOST:PORT`},
		{`{"to": "http://wiki.lan/start"}`, `a resource is a whole host: write http://wiki.lan, without path`},
		{`{"to": "http://a@wiki.lan"}`, `a resource is a whole host`},
		{`{"to": "[::1]:80"}`, `::1 alone cannot be told who is calling`},
		{`{"to": "0.0.0.0:80"}`, `no host's address that a gateway can call`},
		{`{"to": "[fe80::1]:80"}`, `no host's address that a gateway can call`},
		{`{"to": "224.0.0.1:80"}`, `no host's address that a gateway can call`},
		{`{"to": "[::ffff:10.1.2.3]:80"}`, `IPv4 in IPv6's clothes`},
		{`{"to": "[fd00:0::1]:80"}`, `write the address fd00:0::1 as fd00::1`},
		{`{"to": "010.6.0.2:80"}`, `not an IP address`},
		{`{"to": "10.6.0:80"}`, `not an IP address`},
		{`{"to": "10.6.0.0/24:80"}`, `is a network`},
		{`{"to": "nas.lan:http"}`, `"http" is not a port`},
		{`{"to": "nas.lan:0"}`, `"0" is not a port`},
		{`{"to": "nas.lan:"}`, `no port behind its colon`},
		{`{"to": "nás.lan:80"}`, `not a host's name`},
		{`{"to": "-a:80"}`, `not a host's name`},
		{`{"to": ":80"}`, `names no host`},
		{`{"to": "fd00::1:80:x"}`, `write an IPv6 address in brackets`},
		{`{"to": "h:80"}`, `the target "h" is looked up by DNS, not in "hosts"`},
		{`{"to": "10.6.0.2:80", "port": "80"}`, `"80" is not a port: write a number from 1 to 65535, without quotes`},
		{`{"to": "10.6.0.2:80", "port": 70000}`, `70000 is not a port`},
		{`{"to": "10.6.0.2:80", "title": "a\u202eb"}`, `the title has control characters`},
		{`{"to": "10.6.0.2:80", "title": " a"}`, `a title begins and ends with something that can be seen`},
		{`{"ports": ["tcp:1"]}`, `a resource needs "to"`},
	} {
		p, err := Parse([]byte(`{"hosts": {"h": "10.1.2.3"}, "resources": {"r": ` + test.text + `}}`))
		got := ""
		if err != nil {
			got = err.Error()
		} else if r := p.Resource("r"); r != nil {
			got = r.ToText() + " at " + SpansText(r.Ports)
		}
		if err == nil && got != test.want || err != nil && !strings.Contains(got, test.want) || strings.Contains(got, "\n") {
			t.Errorf("%s\ngot  %s\nwant %s", test.text, got, test.want)
		}
	}
}

func TestResourceGrants(t *testing.T) {
	const head = `{"hosts": {"h": "10.1.2.3"}, "resources": {"r": {"to": "10.6.0.2:5432"}, "s": {"to": "10.6.0.3", "ports": ["tcp:1-9", "udp:5"]}}, "grants": [`
	for _, test := range []struct{ grant, want string }{
		{`{"src": ["*"], "dst": ["r"]}`, `tcp:5432`},
		{`{"src": ["*"], "dst": ["r"], "ip": ["*"]}`, `tcp:5432`},
		{`{"src": ["*"], "dst": ["r"], "ip": ["5432"]}`, `tcp:5432`},
		{`{"src": ["*"], "dst": ["s"], "ip": ["tcp:2-3"]}`, `tcp:2-3`},
		{`{"src": ["*"], "dst": ["r"], "ip": ["tcp:22"]}`, `the resource "r" has tcp:5432, not all of tcp:22`},
		{`{"src": ["*"], "dst": ["r"], "ip": ["udp:5432"]}`, `the resource "r" has tcp:5432, and nothing of udp:5432`},
		{`{"src": ["*"], "dst": ["s"], "ip": ["tcp:5-12"]}`, `not all of tcp:5-12`},
		{`{"src": ["*"], "dst": ["r", "h"]}`, `a grant needs "ip", unless all of its destinations are resources`},
		{`{"src": ["r"], "dst": ["app"], "ip": ["*"]}`, `the resource "r" begins no flows`},
		{`{"src": ["h"], "dst": ["r"]}`, `"h" cannot reach the resource "r"`},
		{`{"src": ["*"], "dst": ["127.0.0.1"], "ip": ["tcp:1"]}`, `publish what listens there as a resource`},
		{`{"src": ["*"], "dst": ["169.254.1.1"], "ip": ["tcp:1"]}`, `is link-local`},
		{`{"src": ["*"], "dst": ["ff02::1"], "ip": ["udp:1"]}`, `is multicast`},
		{`{"src": ["*"], "dst": ["0.0.0.0/0", "10.0.0.0/8"], "ip": ["tcp:1"]}`, `tcp:1`},
	} {
		p, err := Parse([]byte(head + test.grant + `]}`))
		got := ""
		if err != nil {
			got = err.Error()
		} else {
			got = SpansText(p.Grants()[0].Dst[0].Spans)
		}
		if err == nil && got != test.want || err != nil && !strings.Contains(got, test.want) {
			t.Errorf("%s\ngot  %s\nwant %s", test.grant, got, test.want)
		}
	}
	for _, text := range []string{`{"hosts": {"r": "10.1.2.3"}, "resources": {"r": {"to": "10.6.0.2:1"}}}`, `{"resources": {"app": {"to": "10.6.0.2:1"}}}`} {
		if _, err := Parse([]byte(text)); err == nil {
			t.Errorf("%s is taken", text)
		}
		if p := ParseStored([]byte(text)); len(p.Ignored()) == 0 {
			t.Errorf("%s: stored, nothing of it is ignored", text)
		}
	}
}
