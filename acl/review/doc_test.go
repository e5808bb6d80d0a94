package review_test

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/tailscale/hujson"

	"vpnd/acl/acltest"
	"vpnd/acl/language"
	"vpnd/acl/review"
	"vpnd/acl/rules"
)

// docSubjects and docOptions are the people and devices that docs/policy.md speaks of.
var docSubjects = []rules.Subject{
	acltest.Device("alice/laptop", "alice", nil, "10.77.0.2", "fd77::2"),
	acltest.Device("alice/phone", "alice", nil, "10.77.0.3", "fd77::3"),
	acltest.Device("bob/phone", "bob", nil, "10.77.0.4", "fd77::4"),
	acltest.Device("carol/laptop", "carol", nil, "10.77.0.5", "fd77::5"),
	acltest.Device("dave/laptop", "dave", nil, "10.77.0.6", "fd77::6"),
	acltest.Device("bob/web1", "bob", []string{"tag:web"}, "10.77.0.7", "fd77::7"),
	acltest.Device("alice/leipzig", "alice", []string{"tag:site"}, "10.77.0.8", "fd77::8"),
	acltest.Device("emergency/card", "emergency", nil, "10.77.0.9", "fd77::9"),
}

var docOptions = rules.Options{Network: acltest.Small.Network, Gateway: acltest.Small.Gateway, Session: 12 * time.Hour,
	Users: []string{"alice", "bob", "carol", "dave", "emergency"}}

const verdictHeader = "| from | to | when | last code | answer |"

// TestDocExamples executes every policy of docs/policy.md, its messages and verdicts.
func TestDocExamples(t *testing.T) {
	_, parts, err := acltest.ReadDoc("../../docs/policy.md")
	if err != nil {
		t.Fatal(err)
	}
	var accepted, refused, verdicts int
	for i, p := range parts {
		if !strings.HasPrefix(p.Info, "hujson") {
			continue
		}
		var said string // the messages shown
		if i+1 < len(parts) && parts[i+1].Info == "text" {
			said = parts[i+1].Text()
		}
		t.Run("line "+strconv.Itoa(p.Line), func(t *testing.T) {
			policy, rules, problems := docCheck(p.Text(), docOptions, docSubjects)
			if got := shown(problems); got != said {
				t.Errorf("it says\n%s\nthe page shows\n%s", got, said)
			}
			if p.Info == "hujson refused" {
				refused++
				if !problems.Fatal() {
					t.Error("marked as refused, but it is taken")
				}
				return
			}
			if p.Info != "hujson" {
				t.Fatalf("what is %q?", p.Info)
			}
			if rules == nil {
				t.Fatal("it is refused")
			}
			accepted++
			if err := acltest.Conforms(policy.Text()); err != nil {
				t.Errorf("the schema does not take it: %v", err)
			}
			// It holds too where nobody has enrolled yet, as in a check without a daemon.
			if _, _, problems := docCheck(p.Text(), acltest.Small, nil); problems.Fatal() {
				t.Errorf("without devices: %v", problems)
			}
			testsBite(t, policy)
			for _, table := range parts[i+1:] {
				if strings.HasPrefix(table.Info, "hujson") {
					break
				}
				if table.Info == verdictHeader {
					for _, row := range table.Cells() {
						verdicts++
						if got := docVerdict(t, policy, rules, row); got != row[4] {
							t.Errorf("%v: got %q", row, got)
						}
					}
				}
			}
		})
	}
	t.Logf("%d policies taken, %d refused, %d verdicts", accepted, refused, verdicts)
	if accepted < 12 || refused < 5 || verdicts < 29 {
		t.Error("the page has more than that: they are not found")
	}
}

func docCheck(text string, o rules.Options, subjects []rules.Subject) (*language.Policy, *rules.Ruleset, language.ErrorList) {
	p, err := language.Parse([]byte(text))
	if err != nil {
		return nil, nil, err.(language.ErrorList)
	}
	r, list := review.Check(p, o, subjects)
	return p, r, list
}

// shown are problems as "vpnctl policy check policy.hujson" prints them.
func shown(list language.ErrorList) string {
	var b strings.Builder
	for _, e := range list {
		b.WriteString("policy.hujson:" + e.Error() + "\n")
	}
	return b.String()
}

// testsBite makes sure that the tests of a policy can fail: every "accept" without any
// grant, every "deny" with a grant of everything.
func testsBite(t *testing.T, p *language.Policy) {
	for _, x := range []struct {
		section string
		grants  any
		has     func(map[string]any) bool
	}{
		{"accept", []any{}, func(x map[string]any) bool { return x["accept"] != nil }},
		{"deny", []any{map[string]any{"src": []string{"*", "0.0.0.0/0", "::/0"}, "dst": []string{"*"}, "ip": []string{"*"}, "mfa": "off"}},
			func(x map[string]any) bool { return x["deny"] != nil }},
	} {
		plain, err := hujson.Standardize(p.Text())
		if err != nil {
			t.Fatal(err)
		}
		var whole map[string]any
		if err := json.Unmarshal(plain, &whole); err != nil {
			t.Fatal(err)
		}
		delete(whole, "acls")
		whole["grants"] = x.grants
		list, _ := whole["tests"].([]any)
		for i := range list {
			if !x.has(list[i].(map[string]any)) {
				continue
			}
			whole["tests"] = list[i : i+1]
			text, err := json.Marshal(whole)
			if err != nil {
				t.Fatal(err)
			}
			if _, _, problems := docCheck(string(text), docOptions, docSubjects); !problems.Fatal() {
				t.Errorf("the %q of its test %d holds whatever is granted", x.section, i+1)
			}
		}
	}
}

// docVerdict judges a row of a table: a device, host or address; a destination and what
// is wanted there; an instant in Berlin; how old the last code is, which began a session
// of 12 hours. A device at the other end has just given a code.
func docVerdict(t *testing.T, p *language.Policy, r *rules.Ruleset, row []string) string {
	t.Helper()
	if len(row) != 5 {
		t.Fatalf("%v: five cells are needed", row)
	}
	berlin, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		t.Fatal(err)
	}
	const clock = "Mon 2006-01-02 15:04"
	now, err := time.ParseInLocation(clock, row[2], berlin)
	if err != nil || now.Format(clock) != row[2] {
		t.Fatalf("%v: no such instant: %v %v", row, now, err)
	}
	session := func(age time.Duration) rules.Session {
		return rules.Session{Code: now.Add(-age), Until: now.Add(12*time.Hour - age)}
	}
	to, want, _ := strings.Cut(row[1], " ")
	_, q, err := review.ParseQuestion("x", want)
	if err != nil {
		t.Fatalf("%v: %q is no protocol with a port: %v", row, want, err)
	}
	var answers []string
	for _, src := range docAddresses(p, row[0]) {
		for _, dst := range docAddresses(p, to) {
			if src.Is4() != dst.Is4() {
				continue
			}
			x := q.Packet(src, dst)
			x.DstSession = session(0)
			if row[3] != "none" {
				age, err := time.ParseDuration(row[3])
				if err != nil {
					t.Fatalf("%v: %v", row, err)
				}
				x.SrcSession = session(age)
			}
			v := r.Verdict(x, now)
			answer := v.Reason.String()
			if !v.Allow {
				answer = "denied: " + answer
			}
			if !v.Until.IsZero() {
				answer += map[bool]string{true: " until ", false: ", again from "}[v.Allow] + v.Until.In(berlin).Format(clock)
			}
			answers = append(answers, answer)
		}
	}
	slices.Sort(answers)
	return strings.Join(slices.Compact(answers), "; ")
}

// docAddresses are the addresses of a device, of a host, or of itself.
func docAddresses(p *language.Policy, name string) []netip.Addr {
	for _, s := range docSubjects {
		if s.Device == name {
			return s.Addrs
		}
	}
	if name == "app" {
		return docOptions.Gateway
	}
	if x, ok := p.HostPrefix(name); ok {
		return []netip.Addr{x.Addr()}
	}
	return []netip.Addr{netip.MustParseAddr(name)}
}

// TestDocLimits: the page has the limits as they are.
func TestDocLimits(t *testing.T) {
	_, parts, err := acltest.ReadDoc("../../docs/policy.md")
	if err != nil {
		t.Fatal(err)
	}
	var rows [][]string
	for _, p := range parts {
		if p.Info == "| limit | at most |" {
			rows = append(rows, p.Cells()...)
		}
	}
	if said := acltest.SameTable(rows, map[string]string{
		"text, in bytes":                             fmt.Sprint(language.MaxText),
		"values in the text":                         fmt.Sprint(language.MaxValues),
		"entries of `acls` and `grants`":             fmt.Sprint(language.MaxGrants),
		"members of all groups, nested ones counted": fmt.Sprint(language.MaxMembers),
		"levels of groups or IP sets":                fmt.Sprint(language.MaxNesting),
		"disjoint prefixes":                          fmt.Sprint(rules.MaxPrefixes),
		"time zones":                                 fmt.Sprint(language.MaxZones),
		"characters of a note":                       fmt.Sprint(language.MaxNote),
		"bytes of a name":                            fmt.Sprint(language.MaxName),
		"bytes of sets that are made and looked at":  fmt.Sprint(rules.MaxBytes),
		"the same of those that its tests look at":   fmt.Sprint(rules.MaxTestBytes),
	}); said != "" {
		t.Error(said)
	}
}
