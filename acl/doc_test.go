package acl

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/tailscale/hujson"
)

// docSubjects and docOptions are the people and devices that docs/policy.md speaks of.
var docSubjects = []Subject{
	subject("alice/laptop", "alice", nil, "10.77.0.2", "fd77::2"),
	subject("alice/phone", "alice", nil, "10.77.0.3", "fd77::3"),
	subject("bob/phone", "bob", nil, "10.77.0.4", "fd77::4"),
	subject("carol/laptop", "carol", nil, "10.77.0.5", "fd77::5"),
	subject("dave/laptop", "dave", nil, "10.77.0.6", "fd77::6"),
	subject("bob/web1", "bob", []string{"tag:web"}, "10.77.0.7", "fd77::7"),
	subject("alice/leipzig", "alice", []string{"tag:site"}, "10.77.0.8", "fd77::8"),
	subject("emergency/card", "emergency", nil, "10.77.0.9", "fd77::9"),
}

var docOptions = Options{Network: testOptions.Network, Gateway: testOptions.Gateway, Session: 12 * time.Hour,
	Users: []string{"alice", "bob", "carol", "dave", "emergency"}}

// docPart is a piece of docs/policy.md that is executed: a fenced block, or a table.
type docPart struct {
	line  int
	info  string // of a block: "hujson", "hujson refused", "text"; of a table: its header
	lines []string
}

func (p docPart) text() string { return strings.Join(p.lines, "\n") + "\n" }

// cells are the cells of a table's rows, without the marks of code.
func (p docPart) cells() (rows [][]string) {
	for _, l := range p.lines {
		row := strings.Split(strings.Trim(l, "|"), " | ")
		for i := range row {
			row[i] = strings.TrimSpace(row[i])
			if s, ok := strings.CutPrefix(row[i], "`"); ok && strings.Count(s, "`") == 1 {
				row[i] = strings.TrimSuffix(s, "`")
			}
		}
		rows = append(rows, row)
	}
	return rows
}

func readDoc(t *testing.T) (text string, parts []docPart) {
	b, err := os.ReadFile("../docs/policy.md")
	if err != nil {
		t.Fatal(err)
	}
	var open *docPart
	inTable := false
	for i, l := range strings.Split(string(b), "\n") {
		fence, isFence := strings.CutPrefix(l, "```")
		switch {
		case isFence && open == nil:
			open = &docPart{line: i + 1, info: fence}
		case isFence:
			parts = append(parts, *open)
			open = nil
		case open != nil:
			open.lines = append(open.lines, l)
		case strings.HasPrefix(l, "|") && !inTable:
			parts = append(parts, docPart{line: i + 1, info: l})
		case strings.HasPrefix(l, "|---"):
		case strings.HasPrefix(l, "|"):
			p := &parts[len(parts)-1]
			p.lines = append(p.lines, l)
		}
		inTable = open == nil && !isFence && strings.HasPrefix(l, "|")
	}
	if open != nil {
		t.Fatalf("the block of line %d has no end", open.line)
	}
	return string(b), parts
}

const verdictHeader = "| from | to | when | last code | answer |"

// TestDocExamples executes every policy of docs/policy.md, its messages and verdicts.
func TestDocExamples(t *testing.T) {
	_, parts := readDoc(t)
	var accepted, refused, verdicts int
	for i, p := range parts {
		if !strings.HasPrefix(p.info, "hujson") {
			continue
		}
		var said string // the messages shown
		if i+1 < len(parts) && parts[i+1].info == "text" {
			said = parts[i+1].text()
		}
		t.Run("line "+strconv.Itoa(p.line), func(t *testing.T) {
			policy, rules, problems := docCheck(p.text(), docOptions, docSubjects)
			if got := shown(problems); got != said {
				t.Errorf("it says\n%s\nthe page shows\n%s", got, said)
			}
			if p.info == "hujson refused" {
				refused++
				if !problems.Fatal() {
					t.Error("marked as refused, but it is taken")
				}
				return
			}
			if p.info != "hujson" {
				t.Fatalf("what is %q?", p.info)
			}
			if rules == nil {
				t.Fatal("it is refused")
			}
			accepted++
			if err := bySchema(t, policy.Text()); err != nil {
				t.Errorf("the schema does not take it: %v", err)
			}
			// It holds too where nobody has enrolled yet, as in a check without a daemon.
			if _, _, problems := docCheck(p.text(), testOptions, nil); problems.Fatal() {
				t.Errorf("without devices: %v", problems)
			}
			testsBite(t, policy)
			for _, table := range parts[i+1:] {
				if strings.HasPrefix(table.info, "hujson") {
					break
				}
				if table.info == verdictHeader {
					for _, row := range table.cells() {
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

func docCheck(text string, o Options, subjects []Subject) (*Policy, *Ruleset, ErrorList) {
	p, err := Parse([]byte(text))
	if err != nil {
		return nil, nil, err.(ErrorList)
	}
	r, err := Compile(p, o, subjects)
	if err != nil {
		return p, nil, err.(ErrorList)
	}
	return p, r, r.Warnings()
}

// shown are problems as "vpnctl policy check policy.hujson" prints them.
func shown(list ErrorList) string {
	var b strings.Builder
	for _, e := range list {
		b.WriteString("policy.hujson:" + e.Error() + "\n")
	}
	return b.String()
}

// testsBite makes sure that the tests of a policy can fail: every "accept" without any
// grant, every "deny" with a grant of everything.
func testsBite(t *testing.T, p *Policy) {
	for _, x := range []struct {
		section string
		grants  any
		has     func(*test) int
	}{
		{"accept", []any{}, func(x *test) int { return len(x.accept) }},
		{"deny", []any{map[string]any{"src": []string{"*", "0.0.0.0/0", "::/0"}, "dst": []string{"*"}, "ip": []string{"*"}, "mfa": "off"}},
			func(x *test) int { return len(x.deny) }},
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
		for i, one := range p.tests {
			if x.has(one) == 0 {
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
func docVerdict(t *testing.T, p *Policy, r *Ruleset, row []string) string {
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
	session := func(age time.Duration) Session {
		return Session{Code: now.Add(-age), Until: now.Add(12*time.Hour - age)}
	}
	to, want, _ := strings.Cut(row[1], " ")
	spans, err := parseIP(want)
	if err != nil || len(spans) == 0 || spans[0].first != spans[0].last && hasPorts(spans[0].proto) {
		t.Fatalf("%v: %q is no protocol with a port: %v", row, want, err)
	}
	var answers []string
	for _, src := range docAddresses(p, row[0]) {
		for _, dst := range docAddresses(p, to) {
			if src.Is4() != dst.Is4() {
				continue
			}
			x := Packet{Src: src, Dst: dst, Proto: spans[0].proto, DstPort: spans[0].last, DstSession: session(0)}
			if x.Proto == protoICMP && !src.Is4() {
				x.Proto = protoICMPv6
			}
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
func docAddresses(p *Policy, name string) []netip.Addr {
	for _, s := range docSubjects {
		if s.Device == name {
			return s.Addrs
		}
	}
	if name == appHost {
		return docOptions.Gateway
	}
	if h, ok := p.hosts[name]; ok {
		return []netip.Addr{h.prefix.Addr()}
	}
	return []netip.Addr{netip.MustParseAddr(name)}
}

// TestDocComplete: the page has every word of the grammar, every form that is refused by
// name, and the limits, as they are.
func TestDocComplete(t *testing.T) {
	text, parts := readDoc(t)
	var policies strings.Builder
	tables := map[string][][]string{}
	for _, p := range parts {
		if p.info == "hujson" {
			policies.WriteString(p.text())
		}
		if strings.HasPrefix(p.info, "|") {
			tables[p.info] = append(tables[p.info], p.cells()...)
		}
	}
	for _, names := range [][]string{file.names(), grantObject.names(), aclObject.names(), testObject.names()} {
		for _, n := range names {
			if !strings.Contains(policies.String(), strconv.Quote(n)+":") {
				t.Errorf("no example has %q", n)
			}
		}
	}
	for _, n := range slices.Concat(slices.Collect(maps.Keys(autogroups)), slices.Collect(maps.Keys(protocols))) {
		if !strings.Contains(text, "`"+n+"`") {
			t.Errorf("the page does not name %s", n)
		}
	}
	targets := map[string]string{}
	for _, f := range foreignTargets {
		targets[f.prefix] = f.instead
	}
	for header, want := range map[string]map[string]string{
		"| in a policy | instead |":              file.foreign,
		"| in a grant | instead |":               grantObject.foreign,
		"| in an entry of `acls` | instead |":    aclObject.foreign,
		"| in a test | instead |":                testObject.foreign,
		"| as source or destination | instead |": targets,
		"| limit | at most |": {
			"text, in bytes":                             fmt.Sprint(maxText),
			"values in the text":                         fmt.Sprint(maxValues),
			"entries of `acls` and `grants`":             fmt.Sprint(maxGrants),
			"members of all groups, nested ones counted": fmt.Sprint(maxMembers),
			"levels of groups or IP sets":                fmt.Sprint(maxNesting),
			"disjoint prefixes":                          fmt.Sprint(maxPrefixes),
			"time zones":                                 fmt.Sprint(maxZones),
			"characters of a note":                       fmt.Sprint(maxNote),
			"bytes of a name":                            fmt.Sprint(maxName),
			"pairs of ends that the tests look at":       fmt.Sprint(maxTestWork),
		},
	} {
		var got, all []string
		for _, row := range tables[header] {
			got = append(got, fmt.Sprintf("| `%s` | %s |", row[0], row[1]))
		}
		for name, instead := range want {
			all = append(all, fmt.Sprintf("| `%s` | %s |", name, instead))
		}
		slices.Sort(got)
		slices.Sort(all)
		if !slices.Equal(got, all) {
			t.Errorf("%s\ngot\n%s\nwant\n%s", header, strings.Join(got, "\n"), strings.Join(all, "\n"))
		}
	}
}
