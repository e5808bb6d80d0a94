package filter

import (
	"errors"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"vpnd/internal/dataplane"
)

// TestComplaints: for each shape of other people's firewall the drops are named, and the
// lines that the complaints give make the packets pass and the complaints go away.
func TestComplaints(t *testing.T) {
	shapes := map[string]struct {
		rules string
		want  []string // parts of the complaints, one each
	}{
		"nothing": {rules: "true"},
		"accepting": {rules: `nft -f - <<'X'
table inet filter {
	chain input { type filter hook input priority 0; policy drop; ct state established accept; udp dport { 53, 51820 } accept; iifname "v*" accept; }
	chain forward { type filter hook forward priority 0; policy drop; iifname "vt" jump ours; oifname "vt" ct state established,related accept; }
	chain ours { accept; }
}
X`},
		"docker": {
			rules: `iptables -P FORWARD DROP
iptables -N DOCKER-USER; iptables -A DOCKER-USER -j RETURN; iptables -A FORWARD -j DOCKER-USER
iptables -A FORWARD -o docker0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
iptables -A FORWARD -i docker0 ! -o docker0 -j ACCEPT`,
			want: []string{"table ip filter, chain FORWARD (policy drop) drops what comes from vt for the networks behind and what goes back to vt: iptables -I DOCKER-USER"},
		},
		"ufw": {
			rules: `mkdir -p /run/etc-ufw; cp -a /etc/ufw/. /run/etc-ufw; mount --bind /run/etc-ufw /etc/ufw
mkdir -p /run/etc-default; cp -a /etc/default/. /run/etc-default; mount --bind /run/etc-default /etc/default
sed -i 's/^IPT_MODULES=.*/IPT_MODULES=""/; s/^IPT_SYSCTL=.*/IPT_SYSCTL=/' /etc/default/ufw
ufw --force reset >/dev/null 2>&1; ufw --force enable 2>&1`,
			want: []string{
				"table ip filter, chain INPUT (policy drop) drops WireGuard's port 51820/udp and the portal in the tunnel (vt, port 45080/tcp) and the app in the tunnel (vt, port 8080/tcp): ufw allow 51820/udp ; ufw allow in on vt",
				"table ip filter, chain FORWARD (policy drop) drops what comes from vt for the networks behind: ufw route allow in on vt",
				"table ip6 filter, chain INPUT (policy drop)",
				"table ip6 filter, chain FORWARD (policy drop)",
			},
		},
		"nftables.conf": {
			rules: `nft -f - <<'X'
table inet filter {
	chain input { type filter hook input priority 0; policy drop; ct state established,related accept; iifname "lo" accept; tcp dport 22 accept; }
	chain forward { type filter hook forward priority 0; policy accept; iifname "vt" goto guest; }
	chain guest { ip daddr 192.0.2.1 accept; reject; }
}
X`,
			want: []string{
				"table inet filter, chain input (policy drop) drops WireGuard's port 51820/udp and the portal in the tunnel (vt, port 45080/tcp) and the app in the tunnel (vt, port 8080/tcp): nft insert rule inet filter input udp dport 51820 accept",
				"table inet filter, chain guest drops what comes from vt for the networks behind: nft insert rule inet filter forward iifname \"vt\" accept",
			},
		},
		"firewalld": {
			rules: `nft -f - <<'X'
table inet firewalld {
	chain filter_INPUT { type filter hook input priority filter + 10; policy accept; ct state established,related accept; ct status dnat accept; iifname "lo" accept; jump filter_IN_public; ct state invalid drop; reject with icmpx admin-prohibited; }
	chain filter_IN_public { tcp dport 22 ct state { new, untracked } accept; }
}
X`,
			want: []string{"table inet firewalld, chain filter_INPUT drops WireGuard's port 51820/udp and the portal in the tunnel (vt, port 45080/tcp) and the app in the tunnel (vt, port 8080/tcp): firewall-cmd --permanent --add-port=51820/udp"},
		},
	}
	for name, s := range shapes {
		t.Run(name, func(t *testing.T) {
			for _, tool := range []string{"ufw", "iptables"} {
				if strings.Contains(s.rules, tool+" ") {
					needNamespaces(t, tool)
				}
			}
			b := newBed(t, simple, func(_ *Config, s *dataplane.State) { s.Gateway.Listen = netip.MustParseAddrPort("0.0.0.0:51820") })
			b.serveWiki()
			sh(t, s.rules)
			if name == "ufw" {
				defer sh(t, "ufw --force disable; umount /etc/ufw /etc/default")
			}
			found := b.f.Complaints()
			got := make([]string, len(found))
			for i, c := range found {
				got[i] = c.String()
			}
			if len(got) != len(s.want) {
				t.Errorf("%d complaints, want %d:\n%s", len(got), len(s.want), strings.Join(got, "\n"))
			}
			for _, w := range s.want {
				if !strings.Contains(strings.Join(got, "\n"), w) {
					t.Errorf("no complaint has %q:\n%s", w, strings.Join(got, "\n"))
				}
			}
			if name == "firewalld" {
				return // the shape alone, without firewall-cmd
			}
			for _, c := range found {
				for _, cmd := range strings.Split(c.Line, " ; ") {
					sh(t, cmd)
				}
			}
			if got := b.f.Complaints(); len(got) != 0 {
				t.Errorf("after the lines were added: %v", got)
			}
			s := b.signIn("alice", time.Hour)
			answer, err := b.tcp("alice", wiki4, 443)
			b.want("after the lines were added", "wiki", answer, err)
			b.signOut(s)
		})
	}
}

// TestLegacyTablesUnseen: lists that this user may not read are not taken for empty ones.
func TestLegacyTablesUnseen(t *testing.T) {
	proc := t.TempDir()
	if got := legacyTables(proc, "vt"); len(got) != 0 {
		t.Errorf("without modules: %q", got)
	}
	for name, text := range map[string]string{"ip": "nat\nfilter\n", "ip6": "nat\n"} {
		if err := os.WriteFile(proc+"/"+name+"_tables_names", []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if got := legacyTables(proc, "vt"); len(got) != 1 || !strings.Contains(got[0], "iptables-legacy has a filter table") {
		t.Errorf("with a filter table: %q", got)
	}
	// A folder in its place cannot be read by anybody, root included.
	for _, name := range []string{"ip", "ip6"} {
		if err := errors.Join(os.Remove(proc+"/"+name+"_tables_names"), os.Mkdir(proc+"/"+name+"_tables_names", 0o755)); err != nil {
			t.Fatal(err)
		}
	}
	if got := legacyTables(proc, "vt"); len(got) != 2 || !strings.Contains(got[0], "could not be seen") {
		t.Errorf("unreadable: %q", got)
	}
}
