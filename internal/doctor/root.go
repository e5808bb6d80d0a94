package doctor

import (
	"context"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"vpnd/internal/dataplane/linux/filter"
)

// Host is what root looks at beside vpnd.
type Host struct {
	Proc           string
	WireGuardConfs string // wg-quick's folder
	Port, Portal   uint16 // UDP, TCP
	Interface      string // empty on netstack
	Network        []netip.Prefix
	Known          []*Finding // vpnd's own
}

// Root looks at what vpnd's sandbox keeps from it: the clock's state, the rules of others
// where vpnd has no capability, other WireGuards' configs.
func Root(ctx context.Context, h Host) (out []*Finding) {
	unknown := func(subject string) bool {
		return slices.ContainsFunc(h.Known, func(f *Finding) bool { return f.Subject == subject && f.Severity == Unknown })
	}
	if unknown("clock") {
		out = append(out, Clock(Adjtimex)...)
	}
	if unknown("firewall") && h.Interface == "" {
		out = append(out, Complaints(filter.Foreign(ctx, h.Port, h.Portal))...)
	}
	return append(out, WireGuardConfs(h.WireGuardConfs, h.Port, h.Network)...)
}

// WireGuardConfs looks for the port and the network in wg-quick's files.
func WireGuardConfs(dir string, port uint16, network []netip.Prefix) (out []*Finding) {
	files, _ := filepath.Glob(filepath.Join(dir, "*.conf")) // the pattern is right
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			continue
		}
		for l := range strings.Lines(string(text)) {
			l, _, _ = strings.Cut(l, "#")
			name, value, _ := strings.Cut(l, "=")
			switch strings.ToLower(strings.TrimSpace(name)) {
			case "listenport":
				if strings.TrimSpace(value) == strconv.Itoa(int(port)) {
					out = append(out, find("wgconf_port", "file", file, "port", port))
				}
			case "address":
				for one := range strings.SplitSeq(value, ",") {
					one = strings.TrimSpace(one)
					p, err := netip.ParsePrefix(one)
					if a, e := netip.ParseAddr(one); err != nil && e == nil {
						p, err = netip.PrefixFrom(a, a.BitLen()), nil
					}
					if err == nil && overlaps(p, network) {
						out = append(out, find("wgconf_net", "file", file, "address", one))
					}
				}
			}
		}
	}
	return out
}
