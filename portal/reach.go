package portal

import (
	"cmp"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"vpnd/acl/language"
	"vpnd/acl/rules"
)

// reachAnswer is one address that is open, as the API gives it.
type reachAnswer struct {
	Name    string     `json:"name"`
	Address string     `json:"address"` // "10.0.0.5", "10.1.0.0/16"; "" for people and tags
	Ports   []string   `json:"ports"`   // "tcp:443", "udp:5000-5010", "icmp", "*"
	Until   *time.Time `json:"until"`   // null: no end of its own
}

func reachAnswers(rs []rules.Reach) []reachAnswer {
	out := []reachAnswer{}
	type key struct{ name, address, until string }
	at := map[key]int{}
	for _, r := range rs {
		if !r.Allow {
			continue
		}
		a := reachAnswer{Name: r.Name, Address: addressOf(r.Prefix), Until: utc(r.Until)}
		k := key{a.Name, a.Address, r.Until.UTC().String()}
		i, ok := at[k]
		if !ok {
			i = len(out)
			at[k] = i
			out = append(out, a)
		}
		if p := portsOf(r); !slices.Contains(out[i].Ports, p) {
			out[i].Ports = append(out[i].Ports, p)
		}
	}
	return out
}

// reachView is one named thing on the page: all its addresses and ports that share a fate.
type reachView struct {
	Name      string
	Title     string // of a resource: what people call it
	Note      string // of a resource: what they should know
	Addresses []string
	Ports     []string
	Until     time.Time
	Why       string // for what is shut: the text's id in the catalogue
	Link      string // of a web page that is open
	Way       string // of a resource that is open: what one types to use it
}

// describe says of the resources what the policy says of them, and how one that is open is used.
func describe(list []reachView, p *language.Policy, open bool) {
	for i := range list {
		v := &list[i]
		if p == nil || p.Resource(v.Name) == nil || len(v.Addresses) == 0 {
			continue
		}
		r := p.Resource(v.Name)
		v.Title, v.Note = r.Title, r.Note
		if !open {
			continue
		}
		at := slices.IndexFunc(r.Ports, func(s language.Span) bool { return s.Proto == language.ProtoTCP })
		if at < 0 {
			continue
		}
		address, port := v.Addresses[0], strconv.Itoa(int(r.Ports[at].First))
		hostPort := net.JoinHostPort(address, port)
		switch {
		case r.To.HTTP && port == "80":
			v.Link = "http://" + strings.TrimSuffix(hostPort, ":80") + "/"
		case r.To.HTTP:
			v.Link = "http://" + hostPort + "/"
		case port == "22":
			v.Way = "ssh " + address
		case port == "445":
			v.Way = "smb://" + address
		case port == "5432":
			v.Way = "psql -h " + address
		case port == "3306":
			v.Way = "mysql -h " + address
		default:
			v.Way = hostPort
		}
	}
}

// reachViews sorts what there is into what is open, what a code would open, and what
// stays shut.
func reachViews(rs []rules.Reach) (open, byCode, shut []reachView) {
	type key struct {
		name, until string
		reason      rules.Reason
	}
	at := map[key]int{}
	var all []reachView
	var reasons []rules.Reason
	for _, r := range rs {
		if r.Allow {
			r.Reason = rules.Allowed
		}
		k := key{r.Name, r.Until.UTC().String(), r.Reason}
		i, ok := at[k]
		if !ok {
			i = len(all)
			at[k] = i
			v := reachView{Name: r.Name, Until: r.Until.UTC()}
			v.Why = why(r.Reason, r.Until)
			all = append(all, v)
			reasons = append(reasons, r.Reason)
		}
		v := &all[i]
		if a := addressOf(r.Prefix); a != "" && a != v.Name && !slices.Contains(v.Addresses, a) {
			v.Addresses = append(v.Addresses, a)
		}
		p := portsOf(r)
		if r.Proto == 58 {
			p = "icmp" // one word for both families: to a person it is ping
		}
		if !slices.Contains(v.Ports, p) {
			v.Ports = append(v.Ports, p)
		}
	}
	for i, v := range all {
		switch reasons[i] {
		case rules.Allowed:
			open = append(open, v)
		case rules.NoSession, rules.StaleCode:
			byCode = append(byCode, v)
		default:
			shut = append(shut, v)
		}
	}
	for _, list := range [][]reachView{open, byCode, shut} {
		slices.SortStableFunc(list, func(a, b reachView) int { return cmp.Compare(a.Name, b.Name) })
	}
	return open, byCode, shut
}

// why is the text of a verdict's reason. Of what is shut for its hours, until is when it
// opens, which the page says behind it.
func why(r rules.Reason, until time.Time) string {
	switch r {
	case rules.Allowed, rules.NoSession:
		return ""
	case rules.StaleCode:
		return "reach.stale"
	case rules.OutsideTime:
		if until.IsZero() {
			return "reach.over"
		}
		return "reach.other_time"
	case rules.PeerOffline:
		return "reach.offline"
	default:
		return "reach.not_granted"
	}
}

// addressOf is "" for people and tags, which the policy knows by name alone.
func addressOf(p netip.Prefix) string {
	if !p.IsValid() {
		return ""
	}
	if p.IsSingleIP() {
		return p.Addr().String()
	}
	return p.String()
}

// portsOf writes protocol and ports as the policy would.
func portsOf(r rules.Reach) string {
	var proto string
	switch r.Proto {
	case 0:
		return "*"
	case 1:
		return "icmp"
	case 58:
		return "ipv6-icmp"
	case 6:
		proto = "tcp"
	case 17:
		proto = "udp"
	case 132:
		proto = "sctp"
	default:
		return strconv.Itoa(int(r.Proto))
	}
	switch {
	case r.First <= 1 && r.Last == 65535:
		return proto + ":*"
	case r.First == r.Last:
		return fmt.Sprintf("%s:%d", proto, r.First)
	default:
		return fmt.Sprintf("%s:%d-%d", proto, r.First, r.Last)
	}
}

// opensTCP says whether a TCP address is open now.
func opensTCP(rs []rules.Reach, a netip.AddrPort) bool {
	return slices.ContainsFunc(rs, func(r rules.Reach) bool {
		return r.Allow && r.Prefix.Contains(a.Addr()) &&
			(r.Proto == 0 || r.Proto == 6 && r.First <= a.Port() && a.Port() <= r.Last)
	})
}

// hostOf reads the host of an address that next has checked.
func hostOf(s string) netip.AddrPort {
	u, err := url.Parse(s)
	if err != nil {
		return netip.AddrPort{}
	}
	a, err := netip.ParseAddrPort(u.Host)
	if err != nil {
		return netip.AddrPort{} // not reached: next always writes a port other than 80
	}
	return a
}
