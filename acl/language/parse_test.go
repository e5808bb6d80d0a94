package language

import (
	"fmt"
	"strings"
	"testing"
)

// grantWith is a policy whose only grant has one thing replaced.
func grantWith(src, dst, ip, more string) string {
	return fmt.Sprintf(`{"hosts": {"db": "10.1.2.3"}, "groups": {"group:ops": ["alice"]}, "tagOwners": {"tag:web": []},
"grants": [{"src": [%s], "dst": [%s], "ip": [%s]%s}]}`, src, dst, ip, more)
}

// TestParseErrors: each text is refused with its faults, all at once; "@L:C" says where.
func TestParseErrors(t *testing.T) {
	ok := `"src": ["*"], "dst": ["*"], "ip": ["*"]`
	for _, test := range []struct {
		text string
		want []string // "L:C part of the message"
	}{
		{`[]`, []string{`1:1 a policy is an object {…}, not a list`}},
		{`{`, []string{`1:2 this is not HuJSON`}},
		{"{\n  \"grants\": [}\n", []string{`2:14 this is not HuJSON`}},
		{`{"grants": null}`, []string{`1:12 "grants" is a list […], not null`}},
		{`{"ssh": []}`, []string{`1:2 "ssh" is not supported: there is no SSH server`}},
		{`{"nodeAttrs": []}`, []string{`1:2 "nodeAttrs" is not supported`}},
		{`{"grant": []}`, []string{`1:2 a policy has no "grant"; did you mean "grants"?`}},
		{`{"grants": [], "grants": []}`, []string{`1:16 "grants" stands here twice`}},
		{`{"grants": [{}]}`, []string{`1:13 a grant needs "src"`, `1:13 a grant needs "dst"`}},
		{`{"grants": [{"src": ["*"], "dst": ["app"]}]}`, []string{`1:13 a grant needs "ip", unless all of its destinations are resources`}},
		{`{"grants": [7]}`, []string{`1:13 a grant is an object {…}, not a number`}},
		{`{"grants": [{` + ok + `, "app": {}}]}`, []string{`1:55 "app" is not supported: application capabilities`}},
		{`{"grants": [{` + ok + `, "via": []}]}`, []string{`1:55 "via" is not supported`}},
		{`{"grants": [{` + ok + `, "srcPosture": []}]}`, []string{`1:55 "srcPosture" is not supported`}},
		{`{"grants": [{` + ok + `, "action": "deny"}]}`, []string{`1:55 "action" is not supported: every grant allows`}},
		{`{"grants": [{` + ok + `, "mfaa": "off"}]}`, []string{`1:55 a grant has no "mfaa"; did you mean "mfa"?`}},
		{`{"acls": [{"action": "deny", "src": [], "dst": []}]}`, []string{`1:22 the action "deny" is not supported`}},
		{`{"acls": [{"action": "accept", "src": ["*"], "dst": ["db"]}]}`, []string{`1:54 "db" names no ports: write "db:443"`}},
		{`{"acls": [{"action": "accept", "src": ["*"], "dst": ["tag:web"]}]}`, []string{`1:54 "tag:web" names no ports`}},
		{`{"acls": [{"action": "accept", "src": ["*"], "dst": ["fd00::1:22"]}]}`, []string{`1:54 "fd00::1:22" may or may not end in a port: write "[fd00::1:22]:*" or "[fd00::1]:22"`}},
		{`{"acls": [{"action": "accept", "src": ["*"], "dst": ["*:22"], "proto": "gre"}]}`, []string{`1:54 this protocol has no ports`}},
		{`{"acls": [{"action": "accept", "users": ["*"], "ports": ["*:*"]}]}`, []string{`1:11 an entry of "acls" needs "src"`, `1:11 an entry of "acls" needs "dst"`, `1:32 "users" is not supported: write "src"`, `1:48 "ports" is not supported: write "dst"`}},
		{grantWith(`"group:opps"`, `"db"`, `"443"`, ``), []string{`2:21 there is no group "group:opps": define it in "groups"; did you mean "group:ops"?`}},
		{grantWith(`"tag:wep"`, `"db"`, `"443"`, ``), []string{`2:21 there is no tag "tag:wep": define it in "tagOwners"; did you mean "tag:web"?`}},
		{grantWith(`"host:dc"`, `"db"`, `"443"`, ``), []string{`2:21 there is no host "dc"`}},
		{grantWith(`"ipset:x"`, `"db"`, `"443"`, ``), []string{`2:21 there is no IP set "ipset:x"`}},
		{grantWith(`"autogroup:internet"`, `"db"`, `"443"`, ``), []string{`2:21 "autogroup:internet" is not supported`}},
		{grantWith(`"autogroup:everything"`, `"db"`, `"443"`, ``), []string{`2:21 "autogroup:everything" is not supported: there are autogroup:member`}},
		{grantWith(`"autogroup:self"`, `"db"`, `"443"`, ``), []string{`2:21 autogroup:self is a destination`}},
		{grantWith(`"tag:web"`, `"autogroup:self"`, `"443"`, ``), []string{`2:21 "tag:web" has no devices of its own`}},
		{grantWith(`"svc:web"`, `"db"`, `"443"`, ``), []string{`2:21 "svc:web" is not supported`}},
		{grantWith(`"grup:ops"`, `"db"`, `"443"`, ``), []string{`2:21 "grup:ops" has an unknown kind "grup:"`}},
		{grantWith(`""`, `"db"`, `"443"`, ``), []string{`2:21 an empty name selects nothing`}},
		{grantWith(`"a b"`, `"db"`, `"443"`, ``), []string{`2:21 "a b" is not a user's name`}},
		{grantWith(`7`, `"db"`, `"443"`, ``), []string{`2:21 an element of "src" is a string "…", not a number`}},
		{grantWith(`"*"`, `"10.1.2.3/24"`, `"443"`, ``), []string{`2:35 10.1.2.3/24 has bits set beyond its length: write 10.1.2.0/24 for the network or 10.1.2.3`}},
		{grantWith(`"*"`, `"10.1.2"`, `"443"`, ``), []string{`2:35 "10.1.2" is not an IP address`}},
		{grantWith(`"*"`, `"10.0.0.0/33"`, `"443"`, ``), []string{`2:35 "10.0.0.0/33" is not a prefix`}},
		{grantWith(`"*"`, `"::ffff:10.0.0.1"`, `"443"`, ``), []string{`2:35 the address ::ffff:10.0.0.1 is IPv4 in IPv6's clothes: write 10.0.0.1`}},
		{grantWith(`"*"`, `"fe80::1%eth0"`, `"443"`, ``), []string{`2:35 the address fe80::1%eth0 names an interface`}},
		{grantWith(`"*"`, `"db"`, `"0"`, ``), []string{`2:49 port 0 does not exist`}},
		{grantWith(`"*"`, `"db"`, `"tcp:0-10"`, ``), []string{`2:49 port 0 does not exist`}},
		{grantWith(`"*"`, `"db"`, `"65536"`, ``), []string{`2:49 "65536" is not a port`}},
		{grantWith(`"*"`, `"db"`, `"tcp:https"`, ``), []string{`2:49 "https" is not a port: write a number from 1 to 65535, a range like 8000-8099, or "*"; names of ports are not supported`}},
		{grantWith(`"*"`, `"db"`, `"90-80"`, ``), []string{`2:49 the range 90-80 runs backwards: write 80-90`}},
		{grantWith(`"*"`, `"db"`, `"0443"`, ``), []string{`2:49 "0443" is not a port`}},
		{grantWith(`"*"`, `"db"`, `"tpc:443"`, ``), []string{`2:49 "tpc" is not a protocol`}},
		{grantWith(`"*"`, `"db"`, `"icmp:8"`, ``), []string{`2:49 icmp has no ports: write "icmp:*"`}},
		{grantWith(`"*"`, `"db"`, `"0:*"`, ``), []string{`2:49 protocol 0 is reserved`}},
		{grantWith(`"*"`, `"db"`, `"300:*"`, ``), []string{`2:49 "300" is not a protocol`}},
		{grantWith(`"*"`, `"db"`, `""`, ``), []string{`2:49 "" is not a port`}},
		{grantWith(`"*"`, `"db"`, `"443"`, `, "mfa": 15`), []string{`2:64 "mfa" is a string`}},
		{grantWith(`"*"`, `"db"`, `"443"`, `, "mfa": "15 minutes"`), []string{`2:64 "15 minutes" is not a freshness`}},
		{grantWith(`"*"`, `"db"`, `"443"`, `, "mfa": "500ms"`), []string{`2:64 "500ms" is not a freshness`}},
		{grantWith(`"*"`, `"db"`, `"443"`, `, "mfa": "0s"`), []string{`2:64 a code cannot be as fresh as 0s`}},
		{grantWith(`"*"`, `"db"`, `"443"`, `, "mfa": "-1h"`), []string{`2:64 "-1h" is not a freshness`}},
		{grantWith(`"*"`, `"db"`, `"443"`, `, "hours": "Mon-Fri 08:00-18:00"`), []string{`2:66 hours need days, times and a time zone`}},
		{grantWith(`"*"`, `"db"`, `"443"`, `, "hours": "Mon-Fry 08:00-18:00 UTC"`), []string{`2:66 "Mon-Fry" is not a day`}},
		{grantWith(`"*"`, `"db"`, `"443"`, `, "hours": "Mon 8:00-18:00 UTC"`), []string{`2:66 "8:00-18:00" is not a span of time`}},
		{grantWith(`"*"`, `"db"`, `"443"`, `, "hours": "Mon 08:00-08:00 UTC"`), []string{`2:66 "08:00-08:00" is empty`}},
		{grantWith(`"*"`, `"db"`, `"443"`, `, "hours": "Mon 08:00-18:00 Berlin"`), []string{`2:66 "Berlin" is not a time zone`}},
		{grantWith(`"*"`, `"db"`, `"443"`, `, "hours": "Mon 08:00-18:00 Local"`), []string{`2:66 "Local" is not a time zone`}},
		{grantWith(`"*"`, `"db"`, `"443"`, `, "hours": []`), []string{`2:66 no hours are given`}},
		{grantWith(`"*"`, `"db"`, `"443"`, `, "hours": ["Mon 08:00-18:00 UTC", "Tue 08:00-18:00 Europe/Berlin"]`), []string{`2:90 the hours of one grant are in one time zone`}},
		{grantWith(`"*"`, `"db"`, `"443"`, `, "expires": "2026-12-31"`), []string{`2:68 "2026-12-31" is not an instant`}},
		{grantWith(`"*"`, `"db"`, `"443"`, `, "expires": "2026-12-31T18:00:00"`), []string{`2:68 "2026-12-31T18:00:00" is not an instant`}},
		{`{"groups": {"ops": []}}`, []string{`1:13 the name of a group begins with "group:": write "group:ops"`}},
		{`{"groups": {"group:1st": []}}`, []string{`1:13 "1st" is not a name for a group`}},
		{`{"groups": {"group:a": ["tag:web"]}}`, []string{`1:25 "tag:web" cannot be in a group`}},
		{`{"groups": {"group:a": ["group:b"]}}`, []string{`1:25 there is no group "group:b"`}},
		{`{"groups": {"group:a": ["group:b"], "group:b": ["group:a"]}}`, []string{`1:49 the group "group:a" contains itself through "group:b"`}},
		{`{"hosts": {"app": "10.0.0.1"}}`, []string{`1:12 the host "app" is the gateway itself`}},
		{`{"hosts": {"db": ["10.0.0.1"]}}`, []string{`1:18 a host's address is a string "…", not a list`}},
		{`{"hosts": {"db": "db.example.com"}}`, []string{`1:18 "db.example.com" is not an IP address`}},
		{`{"hosts": {"10.0.0.1": "10.0.0.1"}}`, []string{`1:12 "10.0.0.1" is not a name for a host`}},
		{`{"ipsets": {"ipset:a": ["group:x"]}}`, []string{`1:25 "group:x" cannot be in an IP set`}},
		{`{"ipsets": {"ipset:a": ["add nowhere"]}}`, []string{`1:25 there is no host "nowhere"`}},
		{`{"ipsets": {"ipset:a": ["ipset:a"]}}`, []string{`1:25 the IP set "ipset:a" contains itself through "ipset:a"`}},
		{`{"tagOwners": {"web": []}}`, []string{`1:16 the name of a tag begins with "tag:"`}},
		{`{"tagOwners": {"tag:web": ["*"]}}`, []string{`1:28 "*" cannot own a tag`}},
		{`{"tests": [{"src": "alice"}]}`, []string{`1:12 this tests nothing`}},
		{`{"tests": [{"src": "alice", "accept": ["app"]}]}`, []string{`1:12 this tests nothing`, `1:40 "app" names no ports`}},
		{`{"tests": [{"src": "alice", "allow": ["app:1"], "deny": ["app:2"]}]}`, []string{`1:29 "allow" is not supported: write "accept"`}},
		{strings.Repeat("[", 100), []string{`1:17 more than 16 nested brackets`}},
		// Several at once, in the order of the text.
		{"{\"ssh\": [],\n\"hosts\": {\"a\": \"x\"},\n\"grants\": [{\"src\": [\"group:no\"], \"dst\": [\"a\"], \"ip\": [\"0\"]}]}",
			[]string{`1:2 "ssh" is not supported`, `2:16 "x" is not an IP address`, `3:21 there is no group`, `3:55 port 0`}},
	} {
		_, err := Parse([]byte(test.text))
		list, _ := err.(ErrorList)
		got := []string{}
		for _, e := range list {
			got = append(got, fmt.Sprintf("%d:%d %s", e.Line, e.Column, e.Message))
		}
		same := len(got) == len(test.want)
		for i := 0; same && i < len(got); i++ {
			same = strings.HasPrefix(got[i], test.want[i])
		}
		if !same {
			t.Errorf("%s\ngot  %s\nwant %s", Short(test.text), strings.Join(got, "\n     "), strings.Join(test.want, "\n     "))
		}
	}
}

func TestParseAccepts(t *testing.T) {
	for _, text := range acceptedTexts() {
		if _, err := Parse(text); err != nil {
			t.Errorf("%s\n%v", text, err)
		}
	}
}

// acceptedTexts are policies of every form that there is.
func acceptedTexts() (list [][]byte) {
	for _, text := range []string{
		``, ` `, `{}`, "// nothing\n{}", `{"grants": [], "acls": [], "tests": [], "groups": {}, "hosts": {}, "ipsets": {}, "tagOwners": {},}`,
		grantWith(`"*", "alice", "alice@", "bob@example.com", "group:ops", "tag:web", "db", "host:db", "app", "10.0.0.0/8", "fd00::1", "autogroup:member", "autogroup:tagged"`,
			`"*", "alice", "group:ops", "tag:web", "db", "app", "10.0.0.0/8", "::/0"`, `"*"`, ``),
		grantWith(`"alice", "group:ops", "autogroup:member"`, `"autogroup:self"`, `"*", "443", "80-90", "22,80-90", "tcp:443", "udp:*", "icmp", "icmp:*", "47:*", "6:22", "sctp:1", "esp", "*:443"`, ``),
		grantWith(`"*"`, `"db"`, `"22"`, `, "mfa": "1h30m", "hours": ["Mon-Fri 22:00-06:00 Europe/Berlin", "Sat,Sun 00:00-24:00 Europe/Berlin"], "expires": "2026-12-31T18:00:00+01:00", "note": "why"`),
		grantWith(`"*"`, `"db"`, `"22"`, `, "mfa": "off", "hours": "daily 08:00-18:00 UTC"`),
		`{"acls": [{"action": "accept", "src": ["alice"], "proto": "tcp", "dst": ["*:*", "[fd00::1]:22", "fd00::/8:22", "[fd00::]/8:22", "autogroup:self:1-2,5"]}]}`,
		`{"ipsets": {"ipset:a": ["10.0.0.0/8", "add fd00::/8", "remove 10.1.0.0/16", "add host:app", "app"], "ipset:b": ["add ipset:a", "remove ipset:a"]}}`,
		`{"tagOwners": {"tag:a": ["autogroup:admin", "alice", "group:g", "autogroup:member"]}, "groups": {"group:g": ["Alice", "bob@"], "group:h": ["group:g"]}}`,
	} {
		list = append(list, []byte(text))
	}
	return list
}

func TestAccessors(t *testing.T) {
	p, err := Parse([]byte(`{"groups": {"group:b": ["Alice", "group:a"], "group:a": ["bob", "BOB@"]}, "hosts": {"db": "10.0.0.1"},
		"tagOwners": {"tag:x": ["group:b"], "tag:y": [], "tag:z": ["autogroup:member"], "tag:w": ["carol"]}}`))
	if err != nil {
		t.Fatal(err)
	}
	members, ok := p.Members("group:b")
	for _, test := range []struct{ got, want any }{
		{p.Groups(), []string{"group:a", "group:b"}},
		{members, []string{"alice", "bob"}}, {ok, true},
		{p.GroupsOf("BOB"), []string{"group:a", "group:b"}},
		{p.GroupsOf("nobody"), []string(nil)},
		{p.Hosts(), []string{"app", "db"}},
		{p.Tags(), []string{"tag:w", "tag:x", "tag:y", "tag:z"}},
		{p.MayTag("alice", "tag:x"), true}, {p.MayTag("Bob", "tag:x"), true}, {p.MayTag("carol", "tag:x"), false},
		{p.MayTag("alice", "tag:y"), false}, {p.MayTag("alice", "tag:z"), true}, {p.MayTag("Carol", "tag:w"), true}, {p.MayTag("alice", "tag:none"), false},
	} {
		if fmt.Sprint(test.got) != fmt.Sprint(test.want) {
			t.Errorf("got %v, want %v", test.got, test.want)
		}
	}
}
