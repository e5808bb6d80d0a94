package filter

import (
	"flag"
	"net/netip"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"vpnd/acl/language"
	"vpnd/acl/rules"
	"vpnd/internal/dataplane"
)

var update = flag.Bool("update", false, "write the golden files anew")

// TestGolden: what a person sees with "nft list table inet vpnd".
func TestGolden(t *testing.T) {
	text, err := os.ReadFile("testdata/policy.hujson")
	if err != nil {
		t.Fatal(err)
	}
	b := newBed(t, "{}", func(c *Config, s *dataplane.State) {
		s.Gateway.Masquerade = true
		c.RelayTCP, c.RelayUDP = relayTCP, relayUDP
	})
	b.users["phone"] = rules.Subject{Device: "alice/phone", User: "alice", Addrs: []netip.Addr{netip.MustParseAddr("10.77.0.4")}}
	b.state.Devices = append(b.state.Devices, b.device("phone"))
	b.state.Rules = b.compile(string(text))
	files := service("files", 1, []language.Span{{Proto: 6, First: 445, Last: 445}, {Proto: 17, First: 137, Last: 138}}, netip.MustParseAddr("192.168.50.8"))
	pg := service("pg", 2, tcpPort(5433), netip.MustParseAddr("192.168.50.7"))
	pg.ToPort = 5432
	pg6 := pg
	pg.Addrs, pg6.Addrs, pg6.Hosts = pg.Addrs[:1], pg.Addrs[1:], []netip.Addr{netip.MustParseAddr("fd50::7")}
	wiki := service("wiki", 3, tcpPort(80), netip.MustParseAddr("127.0.0.1"))
	b.state.Services = []dataplane.Service{files, pg, pg6, wiki}
	now := time.Now()
	b.state.Sessions = []dataplane.Session{{Device: "alice", Addrs: b.users["alice"].Addrs, Until: now.Add(11 * time.Hour), Codes: []dataplane.Code{
		{Serial: 0x101, At: now.Add(-time.Hour)}, {Serial: 0x102, At: now.Add(-time.Minute)}}}}
	b.set()
	b.f.mu.Lock()
	err = b.f.sweepLocked(t.Context()) // the first policy's sets
	b.f.mu.Unlock()
	if err != nil {
		t.Fatal(err)
	}
	got := readable(runNFT(t, "list", "table", "inet", "vpnd"))
	if *update {
		if err := os.WriteFile("testdata/listing.nft", []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile("testdata/listing.nft")
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("the listing differs from testdata/listing.nft (go test -run Golden -update writes it):\n%s", got)
	}
}

var (
	elements = regexp.MustCompile(`(?s)elements = \{ (.*?) \}`)
	progname = regexp.MustCompile(` # progname \S+`)
	counters = regexp.MustCompile(`counter packets \d+ bytes \d+`)
	ends     = regexp.MustCompile(`(timeout|expires) [0-9hms]+( expires [0-9hms]+)?`)
	bearing  = regexp.MustCompile(`(0x[0-9a-f]{8}) \. 0x[0-9a-f]{8}`)
	making   = regexp.MustCompile(`(ct label set) meta priority .*`)
	space    = regexp.MustCompile(`\s+`)
)

// drawn hides the tag of labels: the elements that bear one, and the rule that makes them.
func drawn(s string) string {
	s = bearing.ReplaceAllString(s, "$1 . label")
	return making.ReplaceAllString(s, "$1 label")
}

// readable sorts the elements and hides what time and traffic change.
func readable(s string) string {
	s = progname.ReplaceAllString(drawn(s), "")
	s = strings.ReplaceAll(counters.ReplaceAllString(s, "counter"), ".b", "") // either generation
	return elements.ReplaceAllStringFunc(s, func(e string) string {
		list := strings.Split(elements.FindStringSubmatch(e)[1], ",")
		for i, x := range list {
			list[i] = strings.TrimSpace(space.ReplaceAllString(ends.ReplaceAllString(x, "timeout …"), " "))
		}
		slices.Sort(list)
		return "elements = { " + strings.Join(list, ",\n\t\t\t     ") + " }"
	})
}
