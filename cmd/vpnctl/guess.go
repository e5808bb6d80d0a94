package main

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"time"

	"github.com/alecthomas/kong"
)

// guesses are words that people who know other programs try first, and what they look for here.
var guesses = []struct {
	words []string
	says  string
}{
	{[]string{"route", "routes", "network", "networks", "subnet"}, "a network behind the gateway is a setting: vpnctl settings set --routes CIDR,…"},
	{[]string{"acl", "acls", "rule", "rules", "grant", "grants", "allow", "access"}, "who may reach what is the policy: vpnctl policy edit, vpnctl policy explain"},
	{[]string{"peer", "peers", "client", "clients", "node", "nodes", "machine", "key", "keys"}, "a peer is a device here: vpnctl device ls, vpnctl device add"},
	{[]string{"login", "logout", "context"}, "vpnctl needs no login: it speaks to the vpnd of its own host, as root or as vpnd's user"},
	{[]string{"invite", "enrol", "enroll", "add"}, "an invitation is a person's: vpnctl user add NAME, vpnctl user invite NAME"},
	{[]string{"kick", "revoke", "disconnect"}, "to end what is open: vpnctl session end; to end a key for good: vpnctl device rm"},
	{[]string{"config", "dns", "mtu", "endpoint"}, "what the whole gateway has in common: vpnctl settings show; a device's config: vpnctl device rotate"},
	{[]string{"up", "down", "start", "stop", "restart", "reload"}, "the daemon is a service: service vpnd start|stop|restart|reload"},
	{[]string{"log", "logs", "events"}, "what was done: vpnctl audit; the daemon's log: journalctl -u vpnd, or /var/log/vpnd"},
}

// guessed is the help for a word that is no command, empty if there is none.
func guessed(word string) string {
	for _, g := range guesses {
		if slices.Contains(g.words, word) {
			return g.says
		}
	}
	return ""
}

// spoken is what is typed with the words that stand for flags in many programs as those flags:
// nothing and "help" for --help, "version" for --version.
func spoken(args []string) []string {
	switch {
	case len(args) == 0:
		return []string{"--help"}
	case args[0] == "help":
		return append(slices.Clone(args[1:]), "--help")
	case args[0] == "version" && len(args) == 1:
		return []string{"--version"}
	}
	return args
}

var days = regexp.MustCompile(`^(\d{1,5})d`)

// parseDuration takes what time.ParseDuration takes, and days of 24 hours before it: "7d", "1d12h".
func parseDuration(s string) (time.Duration, error) {
	var d time.Duration
	rest := s
	if m := days.FindStringSubmatch(s); m != nil {
		n, err := strconv.Atoi(m[1])
		if err != nil {
			return 0, err
		}
		d, rest = time.Duration(n)*24*time.Hour, s[len(m[0]):]
		if rest == "" {
			return d, nil
		}
	}
	r, err := time.ParseDuration(rest)
	if err != nil || d > 0 && (r < 0 || d+r < d) {
		return 0, fmt.Errorf("%q is no duration: write it as 30m, 12h or 7d", s)
	}
	return d + r, nil
}

// duration decodes a flag's value for kong.
func duration(c *kong.DecodeContext) (time.Duration, error) {
	var s string
	if err := c.Scan.PopValueInto("duration", &s); err != nil {
		return 0, err
	}
	return parseDuration(s)
}
