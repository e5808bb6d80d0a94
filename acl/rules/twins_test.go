package rules_test

import (
	"fmt"
	"math/rand/v2"
	"regexp"
	"strings"
	"testing"

	"vpnd/acl/acltest"
	"vpnd/acl/language"
	"vpnd/acl/rules"
)

// twins are names for the same thing: what holds for one of a kind, holds for all.
var twins = map[string][]string{
	"address":  {"10.1.2.3", "alias", "host:alias", "ipset:one", "ipset:alias", "ipset:nested"},
	"network":  {"10.1.0.0/16", "net", "host:net", "ipset:net", "ipset:nets", "ipset:cut"},
	"loopback": {"127.0.0.1", "lo", "host:lo", "ipset:lo", "ipset:los"},
	"link":     {"169.254.1.0/24", "link", "ipset:link"},
	"gateway":  {"app", "host:app", "ipset:app", "ipset:apps"},
	"person":   {"alice", "alice@", "Alice", "group:alice", "group:nested", "group:deep"},
	"tag":      {"tag:x"},
	"members":  {"autogroup:member"},
	"tagged":   {"autogroup:tagged"},
	"self":     {"autogroup:self"},
	"all":      {"*"},
}

const twinNames = `"hosts": {"alias": "10.1.2.3", "net": "10.1.0.0/16", "lo": "127.0.0.1", "link": "169.254.1.0/24"},
"groups": {"group:alice": ["alice"], "group:nested": ["group:alice"], "group:deep": ["group:nested", "ALICE"]},
"tagOwners": {"tag:x": []},
"ipsets": {"ipset:one": ["10.1.2.3"], "ipset:alias": ["host:alias"], "ipset:nested": ["ipset:alias"],
  "ipset:net": ["10.1.0.0/16"], "ipset:nets": ["add net", "10.1.2.3"], "ipset:cut": ["10.0.0.0/8", "remove 10.0.0.0/16", "remove ipset:rest"],
  "ipset:rest": ["10.0.0.0/8", "remove host:net"], "ipset:lo": ["127.0.0.1"], "ipset:los": ["add ipset:lo"], "ipset:link": ["link"], "ipset:app": ["app"], "ipset:apps": ["ipset:app"]},
`

// TestTwins: every check of a grant, and every verdict, is the same with aliases, groups and
// IP sets in between.
func TestTwins(t *testing.T) {
	kinds := []string{"address", "network", "gateway", "person", "tag", "members", "tagged", "self", "all", "loopback", "link"}
	ports := []string{"*", "443", "80-90", "tcp:443", "udp:*", "icmp", "47:*"}
	protos := []string{"", "tcp", "udp", "icmp", "gre"}
	taken, refused := 0, 0
	for seed := range uint64(600) {
		rng := rand.New(rand.NewPCG(seed, 13))
		pick := func(list []string) string { return list[rng.IntN(len(list))] }
		src, dst := []string{pick(kinds)}, []string{pick(kinds)}
		for rng.IntN(3) == 0 {
			src = append(src, pick(kinds))
		}
		for rng.IntN(3) == 0 {
			dst = append(dst, pick(kinds))
		}
		form, ip, proto := rng.IntN(3), pick(ports), pick(protos)
		// text writes the grant (or the test) with twins drawn anew.
		text := func(first bool) string {
			name := func(list []string, after string) string {
				var out []string
				for _, k := range list {
					n := twins[k][0]
					if !first {
						n = pick(twins[k])
					}
					out = append(out, fmt.Sprintf("%q", n+after))
				}
				return strings.Join(out, ", ")
			}
			switch form {
			case 0:
				return fmt.Sprintf(`{%s"grants": [{"src": [%s], "dst": [%s], "ip": [%q]}]}`, twinNames, name(src, ""), name(dst, ""), ip)
			case 1:
				return fmt.Sprintf(`{%s"acls": [{"action": "accept", "src": [%s], "proto": %q, "dst": [%s]}]}`, twinNames, name(src, ""), proto, name(dst, ":"+regexp.MustCompile(`^[a-z0-9]+:`).ReplaceAllString(ip, "")))
			default:
				return fmt.Sprintf(`{%s"tests": [{"src": [%s], "deny": [%s]}]}`, twinNames, name(src, ""), name(dst, ":443"))
			}
		}
		base := text(true)
		p, err := language.Parse([]byte(base))
		for range 6 {
			other := text(false)
			q, err2 := language.Parse([]byte(other))
			if words(err) != words(err2) {
				t.Fatalf("seed %d: one is refused, or for another reason:\n%s\n%v\n%s\n%v", seed, base, err, other, err2)
			}
			if err != nil {
				refused++
				continue
			}
			taken++
			a, b := compileTwin(t, p), compileTwin(t, q)
			w := &acltest.World{Options: acltest.Small, Subjects: twinSubjects}
			addrs := w.Addrs()
			for range 60 {
				x := w.Packet(rng, addrs, acltest.Now)
				va, vb := a.Verdict(x, acltest.Now), b.Verdict(x, acltest.Now)
				if va.Allow != vb.Allow || va.Reason != vb.Reason {
					t.Fatalf("seed %d: two answers to %+v: %v and %v\n%s\n%s", seed, x, va, vb, base, other)
				}
			}
		}
	}
	if taken < 300 || refused < 300 {
		t.Errorf("%d taken, %d refused: too few of one", taken, refused)
	}
}

var twinSubjects = append([]rules.Subject{acltest.Device("alice/tagged", "alice", []string{"tag:x"}, "10.77.0.9", "fd77::9")}, acltest.Few...)

func compileTwin(t *testing.T, p *language.Policy) *rules.Ruleset {
	t.Helper()
	r, err := rules.Compile(p, acltest.Small, twinSubjects)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

var quoted = regexp.MustCompile(`"[^"]*"|[0-9]+:[0-9]+: `)

// words is what an error says, without the names in it.
func words(err error) string {
	if err == nil {
		return ""
	}
	return quoted.ReplaceAllString(err.Error(), "…")
}
