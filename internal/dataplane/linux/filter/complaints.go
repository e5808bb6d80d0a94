package filter

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/google/nftables"

	"vpnd/internal/dataplane"
	"vpnd/internal/dataplane/linux/run"
)

// An accept of ours cannot undo another table's drop. So a few packets that must pass are
// followed through the base chains of all other tables, and whatever would drop them is
// named, with the line that lets them pass.

// traced is a packet that must pass.
type traced struct {
	what        string // "WireGuard's port 51820/udp"
	hook        *nftables.ChainHook
	iif, oif    string // "" stands for any interface that no rule names
	proto       byte
	dport       uint16
	established bool
	local       bool // addressed to the gateway itself
}

// Complaints names the chains of other tables that will drop what we accept, each with
// the line to add.
func (f *Filter) Complaints() []dataplane.Complaint {
	f.mu.Lock()
	port, closed, published := f.gateway.Listen.Port(), f.closed, len(f.services) > 0
	f.mu.Unlock()
	if closed {
		return nil
	}
	tun := f.c.Interface
	packets := []traced{
		{what: fmt.Sprintf("WireGuard's port %d/udp", port), hook: nftables.ChainHookInput, proto: 17, dport: port, local: true},
		{what: fmt.Sprintf("the portal in the tunnel (%s, port %d/tcp)", tun, f.c.PortalPort), hook: nftables.ChainHookInput, iif: tun, proto: 6, dport: f.c.PortalPort, local: true},
		{what: fmt.Sprintf("the app in the tunnel (%s, port %d/tcp)", tun, f.c.AppPort), hook: nftables.ChainHookInput, iif: tun, proto: 6, dport: f.c.AppPort, local: true},
		{what: "what comes from " + tun + " for the networks behind", hook: nftables.ChainHookForward, iif: tun, proto: 6, dport: 443},
		{what: "what goes back to " + tun, hook: nftables.ChainHookForward, oif: tun, proto: 6, dport: 50000, established: true},
	}
	if port == 0 {
		packets = packets[1:]
	}
	if published && f.c.RelayTCP != 0 {
		for _, p := range []traced{{proto: 6, dport: f.c.RelayTCP}, {proto: 17, dport: f.c.RelayUDP}} {
			p.what = fmt.Sprintf("resources on this host (%s, port %d/%s)", tun, p.dport, p.protocol())
			p.hook, p.iif, p.local = nftables.ChainHookInput, tun, true
			packets = append(packets, p)
		}
	}
	if p := f.c.Public; p != 0 {
		packets = append(packets, publicPortal(p))
	}
	out, err := complaints(context.Background(), packets, tun)
	if lack := f.teller.Lack(); lack != "" {
		out = append(out, dataplane.Complaint{What: lack})
	}
	if err != nil {
		out = append(out, unread(err))
	}
	return append(out, dataplane.Complaints(legacyTables("/proc/net", tun)...)...)
}

// publicPortal is a packet to the portal from anywhere.
func publicPortal(port uint16) traced {
	return traced{what: fmt.Sprintf("the public portal's port %d/tcp", port), hook: nftables.ChainHookInput, proto: 6, dport: port, local: true}
}

// Foreign names the chains that will drop what clients send to these ports of this host, for
// whoever may read the rules where no filter of ours runs.
func Foreign(ctx context.Context, wireguard, portal uint16) []dataplane.Complaint {
	packets := []traced{
		{what: fmt.Sprintf("WireGuard's port %d/udp", wireguard), hook: nftables.ChainHookInput, proto: 17, dport: wireguard, local: true},
		publicPortal(portal),
	}
	out, err := complaints(ctx, packets, "") // none of them comes from a tunnel
	if err != nil {
		out = append(out, unread(err))
	}
	return append(out, dataplane.Complaints(legacyTables("/proc/net", fmt.Sprintf("%d/udp and %d/tcp", wireguard, portal))...)...)
}

func unread(err error) dataplane.Complaint {
	return dataplane.Complaint{What: fmt.Sprintf("the tables of others could not be read, so they may drop what the gateway accepts: %v", err)}
}

// protocol is p's, as all these languages write it.
func (p traced) protocol() string {
	if p.proto == 6 {
		return "tcp"
	}
	return "udp"
}

// legacyTables says what there may be of iptables-legacy, and what to allow there. Its lists are root's alone, and
// looking another way would load its modules.
func legacyTables(proc, allow string) (out []string) {
	for _, name := range []string{"ip", "ip6"} {
		file := filepath.Join(proc, name+"_tables_names")
		b, err := os.ReadFile(file)
		switch {
		case errors.Is(err, fs.ErrNotExist): // its module is not loaded
		case err != nil:
			out = append(out, fmt.Sprintf("whether %stables-legacy has a filter table could not be seen (%v): look for drops in %stables-legacy-save as root, and allow %s there", name, err, name, allow))
		case slices.Contains(strings.Fields(string(b)), "filter"):
			out = append(out, fmt.Sprintf("%stables-legacy has a filter table, which nftables cannot show: look for drops in %stables-legacy-save, and allow %s there", name, name, allow))
		}
	}
	return out
}

// ruleset is one table of somebody else's.
type ruleset struct {
	table  *nftables.Table
	kernel *run.Kernel
	chains map[string]bool
}

func complaints(ctx context.Context, packets []traced, tun string) ([]dataplane.Complaint, error) {
	conn, err := nftables.New()
	if err != nil {
		return nil, err
	}
	all, err := conn.ListChains()
	if err != nil {
		return nil, err
	}
	tables := make(map[string]*ruleset)
	for _, c := range all {
		key := fmt.Sprint(c.Table.Family, c.Table.Name)
		if tables[key] == nil {
			k, err := run.OpenFamily(ctx, byte(c.Table.Family), c.Table.Name)
			if err != nil {
				return nil, err
			}
			defer k.Close()
			tables[key] = &ruleset{c.Table, k, make(map[string]bool)}
		}
		tables[key].chains[c.Name] = true
	}
	var out []dataplane.Complaint
	for _, c := range all {
		ours := c.Table.Family == nftables.TableFamilyINet && c.Table.Name == tableName
		switch c.Table.Family {
		case nftables.TableFamilyINet, nftables.TableFamilyIPv4, nftables.TableFamilyIPv6:
		default:
			continue
		}
		if ours || c.Hooknum == nil || c.Type != nftables.ChainTypeFilter {
			continue
		}
		t := tables[fmt.Sprint(c.Table.Family, c.Table.Name)]
		var what []string
		where, lines := "", []string(nil)
		for _, p := range packets {
			if *p.hook != *c.Hooknum {
				continue
			}
			m := &run.Machine{From: t.kernel, Packet: p.packet(c.Table.Family)}
			v, err := m.Run(c.Name)
			if err != nil {
				out = append(out, dataplane.Complaint{What: fmt.Sprintf("table %s %s, chain %s could not be read, so it may drop %s: %v", familyName(c.Table.Family), c.Table.Name, c.Name, p.what, err)})
				continue
			}
			if v == run.Undecided && c.Policy != nil && *c.Policy == nftables.ChainPolicyDrop {
				v, m.Where = run.Dropped, c.Name+" (policy drop)"
			}
			if v == run.Dropped {
				what, where = append(what, p.what), m.Where
				lines = append(lines, remedy(t, c.Name, p, tun))
			}
		}
		if len(what) > 0 {
			out = append(out, dataplane.Complaint{
				Table: familyName(c.Table.Family) + " " + c.Table.Name, Chain: where,
				What: strings.Join(what, " and "), Line: strings.Join(slices.Compact(lines), " ; "),
			})
		}
	}
	return out, nil
}

// packet is p as a table of the family sees it. What it says not is not known: rules that
// look at it are taken for such as do not match, so there may be a complaint too many.
func (p traced) packet(f nftables.TableFamily) run.Packet {
	name := func(s string) string {
		if s == "" {
			return run.Elsewhere
		}
		return s
	}
	return run.Packet{Partial: true, V6: f == nftables.TableFamilyIPv6, Flow: dataplane.Flow{Proto: p.proto}, Port: p.dport,
		IIF: name(p.iif), OIF: name(p.oif), Established: p.established, Local: p.local}
}

func familyName(f nftables.TableFamily) string {
	switch f {
	case nftables.TableFamilyIPv4:
		return "ip"
	case nftables.TableFamilyIPv6:
		return "ip6"
	}
	return "inet"
}

// remedy is the line to add, in the language of whoever owns the table.
func remedy(t *ruleset, chain string, p traced, tun string) string {
	has := func(prefix string) bool {
		for name := range t.chains {
			if strings.HasPrefix(name, prefix) {
				return true
			}
		}
		return false
	}
	forward := *p.hook == *nftables.ChainHookForward
	switch {
	case t.table.Name == "firewalld":
		if p.iif == "" && !forward {
			return fmt.Sprintf("firewall-cmd --permanent --add-port=%d/%s && firewall-cmd --reload", p.dport, p.protocol())
		}
		return fmt.Sprintf("firewall-cmd --permanent --zone=trusted --add-interface=%s && firewall-cmd --reload", tun)
	case has("ufw-") || has("ufw6-"):
		switch {
		case forward:
			return fmt.Sprintf("ufw route allow in on %s", tun)
		case p.iif == "":
			return fmt.Sprintf("ufw allow %d/%s", p.dport, p.protocol())
		}
		return fmt.Sprintf("ufw allow in on %s", tun)
	}
	// iptables-nft writes chains in capitals; Docker leaves one to its users.
	if chain == strings.ToUpper(chain) && t.table.Family != nftables.TableFamilyINet {
		cmd := "iptables"
		if t.table.Family == nftables.TableFamilyIPv6 {
			cmd = "ip6tables"
		}
		if forward && has("DOCKER-USER") {
			chain = "DOCKER-USER"
		}
		switch {
		case p.oif != "":
			return fmt.Sprintf("%s -I %s -o %s -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT", cmd, chain, tun)
		case p.iif != "":
			return fmt.Sprintf("%s -I %s -i %s -j ACCEPT", cmd, chain, tun)
		}
		return fmt.Sprintf("%s -I %s -p %s --dport %d -j ACCEPT", cmd, chain, p.protocol(), p.dport)
	}
	at := fmt.Sprintf("nft insert rule %s %s %s", familyName(t.table.Family), t.table.Name, chain)
	switch {
	case p.oif != "":
		return fmt.Sprintf("%s oifname %q ct state established,related accept", at, tun)
	case p.iif != "":
		return fmt.Sprintf("%s iifname %q accept", at, tun)
	}
	return fmt.Sprintf("%s %s dport %d accept", at, p.protocol(), p.dport)
}
