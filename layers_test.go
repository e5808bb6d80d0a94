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
	"vpnd/acl":                             0,
	"vpnd/internal/accept":                 0,
	"vpnd/internal/owner":                  0,
	"vpnd/acl/acltest":                     1,
	"vpnd/proto/vpn/v1":                    0,
	"vpnd/peers":                           1,
	"vpnd/peers/conf":                      2,
	"vpnd/internal/dataplane":              2,
	"vpnd/internal/dataplane/bind":         2,
	"vpnd/internal/dataplane/linux/nft":    0,
	"vpnd/internal/dataplane/linux/run":    3,
	"vpnd/internal/dataplane/linux/filter": 4,
	"vpnd/internal/dataplane/linux":        5,
	"vpnd/internal/dataplane/netstack":     3,
	"vpnd/internal/store":                  2,
	"vpnd/internal/reconcile":              5,
	"vpnd/internal/control":                5,
	"vpnd/internal/control/controltest":    3,
	"vpnd/internal/api":                    6,
	"vpnd/portal":                          6,
	"vpnd/protected-app":                   6,
	"vpnd/cmd/vpnd":                        7,
	"vpnd/cmd/vpnctl":                      7,
	"vpnd/packaging/run":                   7,
}

// only lists modules that these packages alone may import.
var only = map[string][]string{
	"github.com/hashicorp/raft": {"vpnd/internal/store"},
	"google.golang.org/grpc": {
		"vpnd/internal/api", "vpnd/proto/vpn/v1", "vpnd/cmd/vpnd", "vpnd/cmd/vpnctl", "vpnd/protected-app", "vpnd/packaging/run",
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
			if pkg == "vpnd/acl" && strings.HasPrefix(i, "vpnd/") {
				t.Errorf("acl imports %s; it imports nothing of ours", i)
			}
		}
	}
}
