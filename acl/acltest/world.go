// package acltest makes random worlds, a policy with devices and packets at every
// boundary, and judges packets by a second, slow and simple reading of the policy. It is
// what the compiler of package rules and the filters of the data planes are held against.
package acltest

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"time"

	"vpnd/acl/language"
	"vpnd/acl/rules"
)

// Grant is a grant as a World keeps it.
type Grant struct {
	Src, Dst []string // selectors as the policy writes them
	IP       []string // of an entry of "acls": the ports, one for each of Dst
	ACL      bool     // an entry of "acls" for Proto, or for any protocol if that is ""
	Proto    string

	MFA     string // "", "off" or a duration
	Hours   []Hours
	Expires time.Time
}

// Hours is a weekly window: the days Mon (0) to Sun (6) that From..To of minutes begins
// on. It passes midnight if To < From.
type Hours struct {
	Days     [7]bool
	From, To int
	Zone     string
}

// World is a policy with its devices.
type World struct {
	Options  rules.Options
	Subjects []rules.Subject
	Groups   map[string][]string
	Hosts    map[string]string
	Sets     map[string][]string // of ipsets
	Tags     []string
	Grants   []Grant
	// Resources are targets and ports, as the policy writes both; Options.Services has where
	// they are inside of the tunnel.
	Resources map[string]Resource
}

// Resource is a resource as a World keeps it.
type Resource struct {
	To    string
	Ports []string // "tcp:443"
}

// Text is the policy in HuJSON.
func (w *World) Text() []byte {
	var b strings.Builder
	b.WriteString("{\n")
	section := func(name string, m map[string][]string) {
		fmt.Fprintf(&b, "  %q: {\n", name)
		for _, k := range sortedKeys(m) {
			fmt.Fprintf(&b, "    %q: %s,\n", k, list(m[k]))
		}
		b.WriteString("  },\n")
	}
	section("groups", w.Groups)
	b.WriteString("  \"hosts\": {\n")
	for _, k := range sortedKeys(w.Hosts) {
		fmt.Fprintf(&b, "    %q: %q,\n", k, w.Hosts[k])
	}
	b.WriteString("  },\n")
	b.WriteString("  \"resources\": {\n")
	for _, k := range sortedKeys(w.Resources) {
		fmt.Fprintf(&b, "    %q: {\"to\": %q, \"ports\": %s},\n", k, w.Resources[k].To, list(w.Resources[k].Ports))
	}
	b.WriteString("  },\n")
	section("ipsets", w.Sets)
	tags := map[string][]string{}
	for _, t := range w.Tags {
		tags[t] = nil
	}
	section("tagOwners", tags)
	b.WriteString("  \"acls\": [\n")
	for _, g := range w.Grants {
		if !g.ACL {
			continue
		}
		dst := make([]string, len(g.Dst))
		for i := range g.Dst {
			dst[i] = g.Dst[i] + ":" + g.IP[i]
			if strings.Contains(g.Dst[i], "::") {
				addr, length, _ := strings.Cut(g.Dst[i], "/")
				if length != "" {
					length = "/" + length
				}
				dst[i] = "[" + addr + "]" + length + ":" + g.IP[i]
			}
		}
		fmt.Fprintf(&b, "    {\"action\": \"accept\", \"src\": %s, \"dst\": %s", list(g.Src), list(dst))
		if g.Proto != "" {
			fmt.Fprintf(&b, ", \"proto\": %q", g.Proto)
		}
		b.WriteString("},\n")
	}
	b.WriteString("  ],\n  \"grants\": [\n")
	for _, g := range w.Grants {
		if g.ACL {
			continue
		}
		fmt.Fprintf(&b, "    {\"src\": %s, \"dst\": %s", list(g.Src), list(g.Dst))
		if len(g.IP) > 0 {
			fmt.Fprintf(&b, ", \"ip\": %s", list(g.IP))
		}
		if g.MFA != "" {
			fmt.Fprintf(&b, ", \"mfa\": %q", g.MFA)
		}
		if len(g.Hours) > 0 {
			var h []string
			for _, x := range g.Hours {
				h = append(h, x.String())
			}
			fmt.Fprintf(&b, ", \"hours\": %s", list(h))
		}
		if !g.Expires.IsZero() {
			fmt.Fprintf(&b, ", \"expires\": %q", g.Expires.Format(time.RFC3339))
		}
		b.WriteString("},\n")
	}
	b.WriteString("  ],\n}\n")
	return []byte(b.String())
}

// String is the window as the policy writes it.
func (h Hours) String() string {
	names := []string{"Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"}
	var days []string
	for i, on := range h.Days {
		if on {
			days = append(days, names[i])
		}
	}
	return fmt.Sprintf("%s %02d:%02d-%02d:%02d %s", strings.Join(days, ","), h.From/60, h.From%60, h.To/60, h.To%60, h.Zone)
}

func list(s []string) string {
	q := make([]string, len(s))
	for i := range s {
		q[i] = fmt.Sprintf("%q", s[i])
	}
	return "[" + strings.Join(q, ", ") + "]"
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

// Compile compiles the policy; the error of a valid World is always nil.
func (w *World) Compile() (*rules.Ruleset, error) {
	p, err := language.Parse(w.Text())
	if err != nil {
		return nil, err
	}
	return rules.Compile(p, w.Options, w.Subjects)
}

var (
	prefixes = []string{
		"10.1.0.0/16", "10.1.2.0/24", "10.1.2.128/25", "10.1.2.3", "10.1.2.4/30", "10.0.0.0/8", "0.0.0.0/0",
		"10.77.0.0/24", "10.77.0.4/30", "10.77.0.1", "192.168.7.0/24", "192.168.7.255", "255.255.255.255",
		"fd01::/16", "fd01:2::/32", "fd01:2::3", "::/0", "fd77::4/126", "fd77::/64", "2001:db8::/32", "fd77::1",
	}
	zones = []string{"UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe"}
)

// Random makes a world with n grants. The same seed makes the same world.
func Random(rng *rand.Rand, n int) *World {
	pick := func(list []string) string { return list[rng.IntN(len(list))] }
	w := &World{
		Options: rules.Options{
			Network: []netip.Prefix{netip.MustParsePrefix("10.77.0.0/16"), netip.MustParsePrefix("fd77::/64")},
			Gateway: []netip.Addr{netip.MustParseAddr("10.77.0.1"), netip.MustParseAddr("fd77::1")},
			Session: 12 * time.Hour,
		},
		Groups: map[string][]string{}, Hosts: map[string]string{}, Sets: map[string][]string{},
		Tags: []string{"tag:x", "tag:y", "tag:unused"},
	}
	users := []string{"alice", "bob", "carol", "dave"}
	for i := range 4 {
		var m []string
		for range rng.IntN(4) {
			m = append(m, pick(users))
		}
		if i > 0 && rng.IntN(2) == 0 {
			m = append(m, fmt.Sprintf("group:g%d", rng.IntN(i)))
		}
		w.Groups[fmt.Sprintf("group:g%d", i)] = m
	}
	for i := range 3 {
		w.Hosts[fmt.Sprintf("h%d", i)] = pick(prefixes)
	}
	for i := range 2 {
		var ops []string
		for range 1 + rng.IntN(4) {
			what := pick(prefixes)
			switch rng.IntN(5) {
			case 0:
				what = "host:" + pick([]string{"h0", "h1", "h2", "app"})
			case 1:
				if i > 0 {
					what = "ipset:s0"
				}
			}
			ops = append(ops, pick([]string{"", "add ", "add ", "remove "})+what)
		}
		w.Sets[fmt.Sprintf("ipset:s%d", i)] = ops
	}
	for i := range 3 + rng.IntN(6) {
		s := rules.Subject{Device: fmt.Sprintf("%d", i), User: pick(users)}
		switch rng.IntN(4) {
		case 0:
			s.Tags = []string{pick([]string{"tag:x", "tag:y", "tag:undefined"})}
		case 1:
			if rng.IntN(3) == 0 {
				s.Tags = []string{"tag:x", "tag:y"}
			}
		}
		// Around the edges of prefixes that policies name.
		host := 2 + i
		s.Addrs = []netip.Addr{netip.MustParseAddr(fmt.Sprintf("10.77.0.%d", host)), netip.MustParseAddr(fmt.Sprintf("fd77::%x", host))}
		if rng.IntN(5) == 0 {
			s.Addrs = s.Addrs[:1]
		}
		w.Subjects = append(w.Subjects, s)
	}
	people := []string{"alice", "Bob", "carol@", "nobody", "group:g0", "group:g1", "group:g2", "group:g3", "autogroup:member"}
	others := []string{"*", "autogroup:tagged", "tag:x", "tag:y", "tag:unused", "h0", "h1", "h2", "app", "ipset:s0", "ipset:s1"}
	selector := func() string {
		switch rng.IntN(3) {
		case 0:
			return pick(people)
		case 1:
			return pick(others)
		default:
			return pick(prefixes)
		}
	}
	ports := []string{"*", "443", "80-90", "80", "85-100,443", "1", "65535", "1-65535", "22,80,100", "91", "82-89,91-99"}
	for range n {
		g := Grant{}
		self := rng.IntN(6) == 0
		for range 1 + rng.IntN(3) {
			if self || rng.IntN(2) == 0 {
				g.Src = append(g.Src, pick(people))
			} else {
				g.Src = append(g.Src, selector())
			}
		}
		for range 1 + rng.IntN(3) {
			g.Dst = append(g.Dst, selector())
		}
		if self {
			g.Dst[0] = "autogroup:self"
		}
		if rng.IntN(3) == 0 {
			g.ACL = true
			g.Proto = pick([]string{"", "", "tcp", "udp", "6", "sctp"})
			for range g.Dst {
				g.IP = append(g.IP, pick(ports))
			}
		} else {
			for range 1 + rng.IntN(3) {
				g.IP = append(g.IP, pick([]string{"", "", "tcp:", "udp:", "sctp:", "17:", "*:"})+pick(ports))
			}
			if rng.IntN(4) == 0 {
				g.IP[0] = pick([]string{"icmp", "icmp:*", "58:*", "gre:*", "47:*", "tcp", "*"})
			}
			g.MFA = pick([]string{"", "", "off", "15m", "1h", "12h", "1s"})
			for range max(0, rng.IntN(6)-3) {
				h := Hours{From: rng.IntN(25) * 60, To: rng.IntN(25) * 60, Zone: zones[len(w.Grants)%len(zones)]}
				if h.From == 24*60 {
					h.From = 0
				}
				if h.From == h.To {
					h.To = 24 * 60
				}
				if h.From == 0 && h.To == 0 {
					h.To = 60
				}
				for range 1 + rng.IntN(4) {
					h.Days[rng.IntN(7)] = true
				}
				g.Hours = append(g.Hours, h)
			}
			if rng.IntN(4) == 0 {
				g.Expires = Now.Add(time.Duration(rng.IntN(97)-48) * time.Hour)
			}
		}
		w.Grants = append(w.Grants, g)
	}
	w.publish()
	return w
}
