package filter

import (
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"vpnd/acl/acltest"
	"vpnd/acl/language"
	"vpnd/acl/rules"
	"vpnd/internal/dataplane"
)

// TestGoldenPolicies holds what becomes of the policies of acl/rules/testdata in nftables against
// the *.nft beside them: the elements of all sets, with alice/laptop signed in. The chains
// that look them up are in testdata/listing.nft.
func TestGoldenPolicies(t *testing.T) {
	needNamespaces(t)
	const folder = "../../../../acl/rules/testdata"
	policies, err := filepath.Glob(folder + "/*.hujson")
	if err != nil || len(policies) == 0 {
		t.Fatal("no golden policies", err)
	}
	for _, file := range policies {
		t.Run(filepath.Base(file), func(t *testing.T) {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			name := strings.TrimSuffix(file, ".hujson")
			rules := goldenRules(t, text)
			if dump, err := os.ReadFile(name + ".rules"); err != nil || rules.Dump(acltest.Now) != string(dump) {
				t.Fatalf("%s.rules is not of these devices: %v", name, err)
			}
			got := goldenElements(t, rules)
			golden := name + ".nft"
			if *update {
				if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if got != string(want) {
				t.Errorf("the elements differ from %s (go test -run Golden -update writes it):\n%s", golden, got)
			}
		})
	}
}

// The cluster and the devices of package rules's own golden test.
var (
	goldenOptions = rules.Options{
		Network: []netip.Prefix{netip.MustParsePrefix("10.77.0.0/16"), netip.MustParsePrefix("fd77::/64")},
		Gateway: addrs("10.77.0.1", "fd77::1"),
		Session: 12 * time.Hour,
	}
	goldenSubjects = []rules.Subject{
		{Device: "alice/laptop", User: "alice", Addrs: addrs("10.77.0.2", "fd77::2")},
		{Device: "alice/phone", User: "alice", Addrs: addrs("10.77.0.3", "fd77::3")},
		{Device: "bob/phone", User: "bob", Addrs: addrs("10.77.0.4", "fd77::4")},
		{Device: "web1", User: "bob", Tags: []string{"tag:web"}, Addrs: addrs("10.77.0.5", "fd77::5")},
	}
)

func addrs(list ...string) (out []netip.Addr) {
	for _, a := range list {
		out = append(out, netip.MustParseAddr(a))
	}
	return out
}

func goldenRules(t *testing.T, text []byte) *rules.Ruleset {
	t.Helper()
	p, err := language.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	ruleset, err := rules.Compile(p, goldenOptions, goldenSubjects)
	if err != nil {
		t.Fatal(err)
	}
	return ruleset
}

// goldenElements brings a policy into the kernel and lists what the sets hold there.
func goldenElements(t *testing.T, ruleset *rules.Ruleset) string {
	t.Helper()
	s := dataplane.State{Gateway: dataplane.Gateway{Addrs: goldenOptions.Gateway, Network: goldenOptions.Network}, Rules: ruleset}
	for _, x := range goldenSubjects {
		s.Devices = append(s.Devices, dataplane.Device{ID: x.Device, Name: x.Device, Addrs: x.Addrs})
	}
	laptop := goldenSubjects[0]
	s.Sessions = []dataplane.Session{{Device: laptop.Device, Addrs: laptop.Addrs, Until: acltest.Now.Add(12 * time.Hour),
		Codes: []dataplane.Code{{Serial: 0x101, At: acltest.Now}}}}
	f, err := Open(t.Context(), Config{Interface: "vt", AppPort: appPort, PortalPort: portalPort, Mark: markBit,
		OnDrift: func(dataplane.Drift) {}, Log: slog.New(slog.NewTextHandler(t.Output(), nil))})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := f.Close(); err != nil {
			t.Error(err)
		}
	}()
	f.now = func() time.Time { return acltest.Now }
	if err := f.Set(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	for _, set := range filledSet.FindAllStringSubmatch(readable(runNFT(t, "list", "table", "inet", "vpnd")), -1) {
		out.WriteString(set[1] + " = {\n")
		for _, e := range strings.Split(set[2], ",") {
			out.WriteString("\t" + strings.TrimSpace(e) + "\n")
		}
		out.WriteString("}\n")
	}
	return out.String()
}

// filledSet is a set or map of a listing with its elements.
var filledSet = regexp.MustCompile(`(?s)\t((?:set|map) \w+) \{[^}]*?elements = \{ (.*?) \}`)
