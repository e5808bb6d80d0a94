package review_test

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"vpnd/acl/acltest"
	"vpnd/acl/language"
	"vpnd/acl/review"
	"vpnd/acl/rules"
)

// told finds what a diff says of a packet.
func told(diff []review.Difference, p rules.Packet) (list []review.Difference) {
	in := func(places []review.Place, a netip.Addr) bool {
		return slices.ContainsFunc(places, func(x review.Place) bool {
			return slices.ContainsFunc(x.Prefixes, func(n netip.Prefix) bool { return n.Contains(a) })
		})
	}
	for _, d := range diff {
		if d.Proto == p.Proto && d.First <= p.DstPort && p.DstPort <= d.Last && in(d.Sources, p.Src) && in(d.Destinations, p.Dst) {
			list = append(list, d)
		}
	}
	return list
}

// TestDiffExact: of random packets at every boundary, exactly those that one policy
// grants and the other does not are gains and losses.
func TestDiffExact(t *testing.T) {
	t.Parallel()
	gains, losses := 0, 0
	for seed := range uint64(60) {
		rng := rand.New(rand.NewPCG(seed, 8))
		w := acltest.Random(rng, 7)
		x := *w
		x.Grants = slices.Clone(w.Grants)
		for range 1 + rng.IntN(2) {
			i := rng.IntN(len(x.Grants))
			x.Grants[i] = acltest.Random(rng, 1).Grants[0]
		}
		if rng.IntN(3) == 0 {
			x.Groups = map[string][]string{"group:g0": {"alice", "bob"}, "group:g1": {"carol"}, "group:g2": {"group:g0"}, "group:g3": {"dave"}}
		}
		a, err := w.Compile()
		if err != nil {
			t.Fatal(err)
		}
		b, err := x.Compile()
		if err != nil {
			t.Fatal(err)
		}
		diff, addrs := review.Diff(a, b), w.Addrs()
		for i := range 600 {
			p := []*acltest.World{w, &x}[i%2].Packet(rng, addrs, acltest.Now)
			if p.Src == p.Dst {
				continue
			}
			before, after := w.Granted(p), x.Granted(p)
			gain, loss := false, false
			for _, d := range told(diff, p) {
				gain, loss = gain || d.Gain(), loss || d.Loss()
			}
			if gain != (!before && after) || loss != (before && !after) {
				t.Fatalf("seed %d: %+v: granted before %v, after %v, but the diff says %+v\n%s\n%s\n%v", seed, p, before, after, told(diff, p), w.Text(), x.Text(), w.Subjects)
			}
			if gain {
				gains++
			}
			if loss {
				losses++
			}
		}
		if d := review.Diff(a, a); len(d) > 0 {
			t.Fatalf("seed %d: a policy differs from itself: %v", seed, d)
		}
	}
	if gains < 100 || losses < 100 {
		t.Errorf("only %d gains and %d losses were met", gains, losses)
	}
}

func TestDiffReads(t *testing.T) {
	subjects := []rules.Subject{
		{Device: "alice/laptop", User: "alice", Addrs: []netip.Addr{netip.MustParseAddr("10.77.0.2"), netip.MustParseAddr("fd77::2")}},
		{Device: "alice/phone", User: "alice", Addrs: []netip.Addr{netip.MustParseAddr("10.77.0.3"), netip.MustParseAddr("fd77::3")}},
		{Device: "bob/phone", User: "bob", Addrs: []netip.Addr{netip.MustParseAddr("10.77.0.4"), netip.MustParseAddr("fd77::4")}},
	}
	options := acltest.Random(rand.New(rand.NewPCG(0, 0)), 0).Options
	head := `{"hosts": {"db": "10.1.2.3", "lan": "10.1.2.0/24"}, "groups": {"group:ops": ["alice", "bob"], "group:dev": ["alice"]}, "grants": [`
	for _, test := range []struct{ before, after, want string }{
		{``, ``, ``},
		{`{"src": ["group:ops"], "dst": ["db"], "ip": ["tcp:5432"]}`, `{"src": ["group:dev"], "dst": ["db"], "ip": ["tcp:5432"]}`, `bob: db tcp:5432: always ->`},
		{``, `{"src": ["group:ops"], "dst": ["app"], "ip": ["tcp:8080"]}`, `alice bob: app tcp:8080: -> always`},
		{`{"src": ["alice"], "dst": ["lan"], "ip": ["tcp:1-1000"]}`, `{"src": ["alice"], "dst": ["lan"], "ip": ["tcp:1-99", "tcp:101-1000"]}`, `alice: lan tcp:100: always ->`},
		{`{"src": ["alice"], "dst": ["lan"], "ip": ["tcp:1"]}`, `{"src": ["alice"], "dst": ["10.1.2.0/25"], "ip": ["tcp:1"]}`, `alice: 10.1.2.128/25 tcp:1: always ->`},
		{`{"src": ["alice"], "dst": ["db"], "ip": ["tcp:1"]}`, `{"src": ["alice"], "dst": ["db"], "ip": ["tcp:1"], "mfa": "15m"}`, `alice: db tcp:1: always -> mfa 15m`},
		{`{"src": ["alice"], "dst": ["db"], "ip": ["tcp:1"]}`, `{"src": ["alice"], "dst": ["db"], "ip": ["tcp:1"]}, {"src": ["*"], "dst": ["db"], "ip": ["tcp:1"], "mfa": "15m"}`, `bob: db tcp:1: -> mfa 15m`},
		{`{"src": ["10.77.0.2"], "dst": ["db"], "ip": ["tcp:1"]}`, ``, `alice/laptop: db tcp:1: always ->`},
		{``, `{"src": ["bob"], "dst": ["bob"], "ip": ["tcp:22"]}`, ``},
		{``, `{"src": ["autogroup:member"], "dst": ["autogroup:self"], "ip": ["tcp:22"]}`, "alice/laptop: alice/phone tcp:22: -> always\nalice/phone: alice/laptop tcp:22: -> always"},
	} {
		var r [2]*rules.Ruleset
		for i, grants := range []string{test.before, test.after} {
			p, err := language.Parse([]byte(head + grants + "]}"))
			if err != nil {
				t.Fatal(err)
			}
			if r[i], err = rules.Compile(p, options, subjects); err != nil {
				t.Fatal(err)
			}
		}
		var lines []string
		for _, d := range review.Diff(r[0], r[1]) {
			names := func(list []review.Place) string {
				var s []string
				for _, p := range list {
					s = append(s, p.Name)
				}
				return strings.Join(s, " ")
			}
			lines = append(lines, strings.TrimSpace(strings.ReplaceAll(fmt.Sprintf("%s: %s %s: %s -> %s", names(d.Sources), names(d.Destinations), d.Ports(), d.Before, d.After), ":  ", ": ")))
		}
		if got := strings.Join(lines, "\n"); got != test.want {
			t.Errorf("%s\n%s\ngot  %s\nwant %s", test.before, test.after, got, test.want)
		}
	}
}

func BenchmarkDiff(b *testing.B) {
	compile := func(grants int) *rules.Ruleset {
		l := acltest.Large{Devices: 10_000, Groups: 500, Grants: grants, Target: "192.168.50.2"}
		text := l.Text()
		if grants == 0 {
			text = "{}"
		}
		p, err := language.Parse([]byte(text))
		if err != nil {
			b.Fatal(err)
		}
		r, err := rules.Compile(p, acltest.LargeOptions, l.Subjects())
		if err != nil {
			b.Fatal(err)
		}
		return r
	}
	before := compile(1000)
	for name, after := range map[string]*rules.Ruleset{"one grant": compile(999), "every grant": compile(0)} {
		b.Run(name, func(b *testing.B) {
			n := 0
			for b.Loop() {
				n = len(review.Changes(review.Diff(before, after)))
			}
			b.ReportMetric(float64(n), "changes")
		})
	}
}
