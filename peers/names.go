package peers

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Rules for names and other strings. They are checked by Apply, so nothing that is in
// the state can break a config, page, terminal, nft rule or log line; whoever takes
// input may check earlier for a better place of the error. Each states its rule in its
// error, which wraps ErrInvalid.

const (
	maxUserName   = 64 // bytes
	maxDeviceName = 32 // bytes
	maxTag        = 64 // bytes, "tag:" included
)

// CheckUserName checks a user's name. An e-mail address is one.
func CheckUserName(s string) error {
	if !word(s, maxUserName, "._-@") {
		return refuse("user_name_invalid", shorten(s))
	}
	// The policy could not tell such a user from an address.
	if _, err := netip.ParseAddr(s); err == nil {
		return refuse("user_name_invalid", s)
	}
	return nil
}

// CheckDeviceName checks a device's name, which is its own without the user's.
func CheckDeviceName(s string) error {
	if !word(s, maxDeviceName, "._-") {
		return refuse("device_name_invalid", shorten(s))
	}
	return nil
}

// CheckTag checks a device's tag as the policy writes it, with its "tag:".
func CheckTag(s string) error {
	name, ok := strings.CutPrefix(s, "tag:")
	ok = ok && len(s) <= maxTag && name != "" && lower(name[0])
	for i := 0; ok && i < len(name); i++ {
		c := name[i]
		ok = lower(c) || digit(c) || c == '-'
	}
	if !ok {
		return refuse("tag_invalid", shorten(s))
	}
	return nil
}

// CheckEndpoint checks what clients dial: host:port.
func CheckEndpoint(s string) error {
	if !hostPort(s, true) {
		return refuse("endpoint_invalid", shorten(s))
	}
	return nil
}

// shared is the space between a provider's NAT and its customers (RFC 6598).
var shared = netip.MustParsePrefix("100.64.0.0/10")

// NotPublic says what keeps people elsewhere from dialling an endpoint, as far as can be told
// without asking anybody; it is empty where nothing does.
func NotPublic(endpoint string) string {
	a, err := netip.ParseAddrPort(endpoint)
	if err != nil {
		return "" // a name
	}
	ip := a.Addr().Unmap()
	switch {
	case ip.IsLoopback(), ip.IsUnspecified():
		return "this host has no address that could be told"
	case ip.IsPrivate(), ip.IsLinkLocalUnicast():
		return "it is a private address"
	case shared.Contains(ip):
		return "it is an address behind a provider's NAT"
	}
	return ""
}

// CheckURL checks the public portal's URL.
func CheckURL(s string) error {
	host, ok := strings.CutPrefix(s, "https://")
	if !ok || !hostPort(host, false) {
		return refuse("url_invalid", shorten(s))
	}
	return nil
}

// hostPort says whether s is host:port, or just a host where the port may be left out.
func hostPort(s string, port bool) bool {
	host, number, found := s, "", false
	if i := strings.LastIndexByte(s, ':'); i >= 0 && !strings.HasSuffix(s, "]") {
		host, number, found = s[:i], s[i+1:], true
	}
	if found {
		n, err := strconv.ParseUint(number, 10, 16)
		if err != nil || n == 0 || strconv.FormatUint(n, 10) != number {
			return false
		}
	} else if port {
		return false
	}
	if inner, ok := strings.CutPrefix(host, "["); ok {
		inner, ok = strings.CutSuffix(inner, "]")
		a, err := netip.ParseAddr(inner)
		return ok && err == nil && a.Is6() && a.Zone() == ""
	}
	if a, err := netip.ParseAddr(host); err == nil {
		return a.Is4()
	}
	return hostName(host)
}

// hostName follows RFC 1123, section 2.1. A last label of digits alone would be read
// as a wrong IPv4 address.
func hostName(s string) bool {
	if len(s) == 0 || len(s) > 253 {
		return false
	}
	labels := strings.Split(s, ".")
	for _, l := range labels {
		if len(l) == 0 || len(l) > 63 || l[0] == '-' || l[len(l)-1] == '-' {
			return false
		}
		for i := range len(l) {
			if c := l[i]; !letter(c) && !digit(c) && c != '-' {
				return false
			}
		}
	}
	return strings.Trim(labels[len(labels)-1], "0123456789") != ""
}

// checkLine checks a free text of one line, as for the audit log.
func checkLine(code, s string, most int) error {
	if len(s) > most {
		return refuse(code+"_too_long", len(s), most)
	}
	for _, r := range s {
		// Cf has the characters that turn the direction of writing.
		if r == utf8.RuneError || unicode.IsControl(r) || unicode.In(r, unicode.Cf, unicode.Zl, unicode.Zp) {
			return refuse(code+"_character", fmt.Sprintf("%U", r))
		}
	}
	return nil
}

// checkText checks a text of many lines.
func checkText(code, s string, most int) error {
	if len(s) > most {
		return refuse(code+"_too_long", len(s), most)
	}
	plain := 0 // nearly all of a long text needs no second look
	for plain < len(s) && (s[plain] >= ' ' && s[plain] < 0x7f || s[plain] == '\n') {
		plain++
	}
	if i := strings.IndexFunc(s[plain:], func(r rune) bool {
		return r == utf8.RuneError || unicode.IsControl(r) && r != '\n' && r != '\t' && r != '\r'
	}); i >= 0 {
		return refuse(code+"_character", plain+i)
	}
	return nil
}

// word says whether s is 1 to most letters, digits and bytes of others, and begins with
// a letter or digit.
func word(s string, most int, others string) bool {
	if len(s) == 0 || len(s) > most || !letter(s[0]) && !digit(s[0]) {
		return false
	}
	for i := range len(s) {
		if c := s[i]; !letter(c) && !digit(c) && strings.IndexByte(others, c) < 0 {
			return false
		}
	}
	return true
}

func lower(c byte) bool  { return 'a' <= c && c <= 'z' }
func letter(c byte) bool { return lower(c | 0x20) }
func digit(c byte) bool  { return '0' <= c && c <= '9' }

// fold gives the form in which names are compared. Names are ASCII, so nothing else is
// folded: to Unicode the sign of the kelvin is a capital k, and would find a name in k.
func fold(name string) string {
	return strings.Map(func(r rune) rune {
		if 'A' <= r && r <= 'Z' {
			return r + ('a' - 'A')
		}
		return r
	}, name)
}

// shorten bounds what an error repeats of somebody's input.
func shorten(s string) string {
	if len(s) > 80 {
		return strings.ToValidUTF8(s[:80], "") + "…"
	}
	return s
}
