package language

import (
	"net/netip"
	"strings"
	"unicode"
)

// SelectorKind is the form of a source or destination in the text.
type SelectorKind uint8

const (
	SelectAny      SelectorKind = iota // *
	SelectMembers                      // autogroup:member: every device that has no tags
	SelectTagged                       // autogroup:tagged: every device that has
	SelectSelf                         // autogroup:self: the user's own devices without tags
	SelectUser                         // alice, alice@
	SelectGroup                        // group:ops
	SelectTag                          // tag:server
	SelectHost                         // db, app
	SelectIPSet                        // ipset:lan
	SelectResource                     // what "resources" defines
	SelectPrefix                       // 10.0.0.0/8, 10.1.2.3
	SelectName                         // a bare name, which "hosts" makes a host, "resources" a resource, and nothing a user
)

// Selector is one source or destination.
type Selector struct {
	Kind   SelectorKind
	Name   string       // as the policy is looked up by; of a user in lower case
	Prefix netip.Prefix // of a prefixTarget
	bare   bool         // a user that was written without "@"
	At     TextRange
}

func (t Selector) String() string {
	switch t.Kind {
	case SelectAny:
		return "*"
	case SelectMembers:
		return "autogroup:member"
	case SelectTagged:
		return "autogroup:tagged"
	case SelectSelf:
		return "autogroup:self"
	case SelectPrefix:
		return PrefixText(t.Prefix)
	default:
		return t.Name
	}
}

// PrefixText leaves the length of a single address out.
func PrefixText(p netip.Prefix) string {
	if p.IsSingleIP() {
		return p.Addr().String()
	}
	return p.String()
}

// AppHost is the host that every policy has: the gateway's own addresses.
const AppHost = "app"

// autogroups are the supported ones; the others have an entry in foreignTargets.
var autogroups = map[string]SelectorKind{
	"autogroup:member": SelectMembers, "autogroup:tagged": SelectTagged, "autogroup:self": SelectSelf,
}

// foreignSelectors are forms of other products, each with what exists here instead.
var foreignSelectors = []struct{ prefix, instead string }{
	{"autogroup:internet", "nothing here routes to the internet; name the networks that are meant"},
	{"autogroup:members", `write "autogroup:member"`},
	{"autogroup:admin", "administrators have no devices of their own kind; make a group"},
	{"autogroup:owner", "administrators have no devices of their own kind; make a group"},
	{"autogroup:shared", "nothing is shared between networks; make a group"},
	{"autogroup:nonroot", "it belongs to Tailscale SSH, which does not exist here"},
	{"svc:", "name a host and its ports"},
	{"user:", "name users, a group or autogroup:member"},
	{"posture:", "there are no device postures; see \"mfa\" on a grant"},
	{"app:", "name a host and its ports"},
}

// ParseSelector reads one source or destination, without its ports.
func ParseSelector(s string) (Selector, error) {
	if k, ok := autogroups[s]; ok {
		return Selector{Kind: k, Name: s}, nil
	}
	for _, f := range foreignSelectors {
		if strings.HasPrefix(s, f.prefix) {
			return Selector{}, faultf(CodeUnsupported, "%q is not supported: %s", Short(s), f.instead)
		}
	}
	kind, name, qualified := strings.Cut(s, ":")
	switch {
	case s == "":
		return Selector{}, faultf(CodeBadName, "an empty name selects nothing: write a user, group, tag, host or prefix, or \"*\"")
	case s == "*":
		return Selector{Kind: SelectAny, Name: s}, nil
	case qualified && kind == "autogroup":
		return Selector{}, faultf(CodeUnsupported, "%q is not supported: there are autogroup:member, autogroup:tagged and autogroup:self", Short(s))
	case qualified && (kind == "group" || kind == "tag" || kind == "ipset" || kind == "host"):
		if err := checkName(kind, name); err != nil {
			return Selector{}, err
		}
		switch kind {
		case "group":
			return Selector{Kind: SelectGroup, Name: s}, nil
		case "tag":
			return Selector{Kind: SelectTag, Name: s}, nil
		case "ipset":
			return Selector{Kind: SelectIPSet, Name: s}, nil
		default:
			return Selector{Kind: SelectHost, Name: name}, nil
		}
	}
	if looksLikeAddress(s) {
		p, err := parsePrefix(s)
		return Selector{Kind: SelectPrefix, Prefix: p}, err
	}
	if qualified {
		return Selector{}, faultf(CodeUnknownKind, "%q has an unknown kind %q: write group:, tag:, ipset: or autogroup:, or a bare name for a user or host%s",
			Short(s), Short(kind+":"), orMean(kind, []string{"group", "tag", "ipset", "host", "autogroup"}))
	}
	user, err := parseUser(s)
	if err != nil {
		return Selector{}, err
	}
	if strings.Contains(s, "@") {
		return Selector{Kind: SelectUser, Name: user}, nil
	}
	return Selector{Kind: SelectName, Name: s, bare: true}, nil
}

// looksLikeAddress tells what is meant as an address or prefix, well written or not,
// from names.
func looksLikeAddress(s string) bool {
	if strings.Contains(s, "/") || strings.Count(s, ":") >= 2 {
		return true
	}
	return s != "" && strings.Trim(s, "0123456789.") == "" && strings.Contains(s, ".")
}

// parsePrefix reads an address or a prefix in CIDR notation.
func parsePrefix(s string) (netip.Prefix, error) {
	if !strings.Contains(s, "/") {
		a, err := netip.ParseAddr(s)
		switch {
		case err != nil:
			return netip.Prefix{}, faultf(CodeBadAddress, "%q is not an IP address: write one like 10.1.2.3 or fd00::1", Short(s))
		case a.Zone() != "":
			return netip.Prefix{}, faultf(CodeBadAddress, "the address %s names an interface: leave the %%%s out", Short(s), Short(a.Zone()))
		case a.Is4In6():
			return netip.Prefix{}, faultf(CodeBadAddress, "the address %s is IPv4 in IPv6's clothes: write %s", s, a.Unmap())
		}
		return netip.PrefixFrom(a, a.BitLen()), nil
	}
	p, err := netip.ParsePrefix(s)
	switch {
	case err != nil:
		return netip.Prefix{}, faultf(CodeBadAddress, "%q is not a prefix: write one like 10.1.0.0/16 or fd00::/64", Short(s))
	case p.Addr().Is4In6():
		return netip.Prefix{}, faultf(CodeBadAddress, "the prefix %s is IPv4 in IPv6's clothes: write it as IPv4", s)
	case p != p.Masked():
		return netip.Prefix{}, faultf(CodeBadAddress, "%s has bits set beyond its length: write %s for the network or %s for the one address", s, p.Masked(), p.Addr())
	}
	return p, nil
}

// MaxName is the most bytes of a name of a group, tag, host, IP set or user.
const MaxName = 128

// checkName checks the name of a group, tag, host or IP set.
func checkName(kind, name string) error {
	ok := name != "" && len(name) <= MaxName
	for i, c := range []byte(name) {
		letter := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
		ok = ok && (letter || i > 0 && (c >= '0' && c <= '9' || c == '-' || c == '_' || c == '.'))
	}
	if !ok {
		return faultf(CodeBadName, "%q is not a name for a %s: names are a letter, then letters, digits, \"-\", \"_\" and \".\", at most %d", Short(name), kind, MaxName)
	}
	return nil
}

// parseUser reads a user's name, in lower case: users are unique without regard to
// case. A final "@" says that it is a user even where a host has the name.
func parseUser(s string) (string, error) {
	name := strings.TrimSuffix(s, "@")
	ok := name != "" && len(name) <= MaxName
	for _, c := range name {
		ok = ok && (unicode.IsLetter(c) || unicode.IsDigit(c) || strings.ContainsRune("-_.+@", c))
	}
	if !ok {
		return "", faultf(CodeBadName, "%q is not a user's name: names are letters, digits, \"-\", \"_\", \".\", \"+\" and \"@\", at most %d bytes", Short(s), MaxName)
	}
	return Fold(name), nil
}

// SplitPorts takes "db:443", "tag:web:80,443", "[fd00::1]:22" or "10.0.0.0/8:*" apart,
// the form of a destination in acls and tests.
func SplitPorts(s string) (host, ports string, err error) {
	if rest, ok := strings.CutPrefix(s, "["); ok {
		addr, after, ok := strings.Cut(rest, "]")
		// "[fd00::]/8:443" keeps the length outside of the brackets.
		bits, ports, ok2 := strings.Cut(after, ":")
		if !ok || !ok2 || bits != "" && bits[0] != '/' {
			return "", "", faultf(CodeBadDestination, "%q is not a destination with ports: write \"[fd00::1]:443\"", Short(s))
		}
		return addr + bits, ports, nil
	}
	i := strings.LastIndexByte(s, ':')
	if i < 0 {
		return "", "", faultf(CodeBadDestination, "%q names no ports: write %q, or %q for all", Short(s), Short(s)+":443", Short(s)+":*")
	}
	host, ports = s[:i], s[i+1:]
	if !strings.Contains(host, "/") && strings.Contains(host, ":") {
		if _, err := netip.ParseAddr(s); err == nil {
			return "", "", faultf(CodeBadDestination, "%q may or may not end in a port: write \"[%s]:*\" or \"[%s]:%s\"", s, s, host, ports)
		}
	}
	switch host {
	case "group", "tag", "autogroup", "ipset", "host":
		return "", "", faultf(CodeBadDestination, "%q names no ports: write %q, or %q for all", Short(s), Short(s)+":443", Short(s)+":*")
	}
	return host, ports, nil
}
