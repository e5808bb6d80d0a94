// Package vpnd_test holds what is tested about the project as a whole.
package vpnd_test

import (
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// layer gives each package its height: imports point down only (docs/architecture.md).
var layer = map[string]int{
	"vpnd/acl/internal/bitset":             0,
	"vpnd/acl/internal/layered":            0,
	"vpnd/acl/internal/ranges":             0,
	"vpnd/acl/language":                    1,
	"vpnd/acl/rules":                       2,
	"vpnd/acl/review":                      3,
	"vpnd/acl/acltest":                     3,
	"vpnd/internal/accept":                 0,
	"vpnd/internal/logs":                   0,
	"vpnd/internal/logs/libraries":         0,
	"vpnd/internal/owner":                  0,
	"vpnd/proto/vpn/v1":                    0,
	"vpnd/peers/former":                    0,
	"vpnd/peers":                           3,
	"vpnd/peers/conf":                      4,
	"vpnd/internal/dataplane":              4,
	"vpnd/internal/dataplane/bind":         0,
	"vpnd/internal/dataplane/line":         0,
	"vpnd/internal/manpage":                0,
	"vpnd/internal/manpage/manpagetest":    1,
	"vpnd/internal/dataplane/linux/nft":    0,
	"vpnd/internal/dataplane/linux/run":    5,
	"vpnd/internal/dataplane/linux/tell":   3,
	"vpnd/internal/dataplane/linux/filter": 6,
	"vpnd/internal/dataplane/linux":        7,
	"vpnd/internal/dataplane/recall":       5,
	"vpnd/internal/dataplane/relay":        5,
	"vpnd/internal/resolve":                0,
	"vpnd/internal/locals":                 2,
	"vpnd/internal/dataplane/netstack":     6,
	"vpnd/internal/store":                  4,
	"vpnd/internal/words":                  4,
	"vpnd/internal/reconcile":              7,
	"vpnd/internal/control":                7,
	"vpnd/internal/control/controltest":    5,
	"vpnd/internal/acme":                   8,
	"vpnd/internal/acme/acmetest":          0,
	"vpnd/internal/doctor":                 8,
	"vpnd/internal/doctor/selftest":        9,
	"vpnd/internal/api":                    9,
	"vpnd/portal":                          8,
	"vpnd/protected-app":                   8,
	"vpnd/internal/metrics":                5,
	"vpnd/cmd/vpnd":                        10,
	"vpnd/cmd/vpnctl":                      10,
	"vpnd/packaging/run":                   10,
}

// only lists modules that these packages alone may import.
var only = map[string][]string{
	"github.com/hashicorp/raft":        {"vpnd/internal/store"},
	"github.com/caddyserver/certmagic": {"vpnd/internal/acme"},
	"google.golang.org/grpc": {
		"vpnd/internal/api", "vpnd/proto/vpn/v1", "vpnd/cmd/vpnd", "vpnd/cmd/vpnctl", "vpnd/protected-app", "vpnd/packaging/run",
		"vpnd/internal/logs/libraries",
	},
}

func TestImportsPointDown(t *testing.T) {
	out, err := exec.Command("go", "list", "-f", `{{.ImportPath}} {{join .Imports " "}}`, "./...").Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	for line := range strings.Lines(string(out)) {
		fields := strings.Fields(line)
		pkg, imports := fields[0], fields[1:]
		if strings.HasPrefix(pkg, "vpnd/test/") || pkg == "vpnd" {
			continue
		}
		height, ok := layer[pkg]
		if !ok {
			t.Errorf("%s has no layer: the design says where its subject lives", pkg)
			continue
		}
		for _, i := range imports {
			for module, owners := range only {
				if (i == module || strings.HasPrefix(i, module+"/")) && !slices.Contains(owners, pkg) {
					t.Errorf("%s imports %s, which only %s may", pkg, i, strings.Join(owners, ", "))
				}
			}
			below, ours := layer[i]
			if strings.HasPrefix(i, "vpnd/") && !ours {
				t.Errorf("%s imports %s, which has no layer", pkg, i)
			}
			if ours && below >= height {
				t.Errorf("%s (layer %d) imports %s (layer %d)", pkg, height, i, below)
			}
			if strings.HasPrefix(pkg, "vpnd/acl/") && strings.HasPrefix(i, "vpnd/") && !strings.HasPrefix(i, "vpnd/acl/") {
				t.Errorf("%s imports %s; the policy imports nothing of ours", pkg, i)
			}
		}
	}
}
