package peers

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// The limits that Apply depends on. They belong to the commands as released: a change
// of one needs a new kind, or replicas of different releases would part.
const (
	maxActor       = 128      // bytes
	maxNote        = 1024     // bytes; also of an audit entry's detail
	maxPolicy      = 1 << 20  // bytes
	maxSealed      = 4096     // bytes of one sealed secret
	maxCert        = 16 << 10 // bytes, DER
	maxDevices     = 100      // of a user
	maxTags        = 16       // of a device
	maxRoutes      = 64       // of the settings: they stand in every config and its QR code
	maxDNS         = 4        // the same
	maxSession     = 31 * 24 * time.Hour
	minSession     = time.Second
	maxAudit       = 10_000                    // entries kept
	maxExpire      = 1_000                     // sessions, and invitations, that one Expire removes
	maxSerial      = 0xffff_feff               // of a code; 0 and what lies above are marks of flows that need no code
	maxCodes       = 256                       // of a session
	maxTime        = 7_258_118_400_000_000_000 // Unix nanoseconds: the year 2200, so that no sum of times overflows
	lockFailures   = 5                         // in a row
	lockFirst      = 15 * time.Minute
	lockMost       = 24 * time.Hour
	usedInvitation = time.Hour // how long it is kept for a repeated EnrolFinish and the page's last step
	minConfirm     = time.Second
	maxConfirm     = 24 * time.Hour // how long a policy may wait for its confirmation
	minPrefixHosts = 3              // bits: a network smaller than 8 addresses has no room for devices
)

// checkSettings checks what Init brings. Endpoint and URL may still be empty.
func checkSettings(s *Settings) error {
	if s.Cluster.IsZero() {
		return refuse(ErrInvalid, "the settings have no cluster id")
	}
	if s.PublicKey == (Key{}) {
		return refuse(ErrInvalid, "the settings have no public key of the gateway")
	}
	for _, secret := range []Sealed{s.PrivateKey, s.CAKey} {
		if len(secret) > maxSealed {
			return refuse(ErrLimit, "a sealed key of the settings has %d bytes: at most %d are possible", len(secret), maxSealed)
		}
	}
	if len(s.CACert) > maxCert {
		return refuse(ErrLimit, "the CA certificate has %d bytes: at most %d are possible", len(s.CACert), maxCert)
	}
	if err := checkNetwork(s.Network); err != nil {
		return err
	}
	if s.Endpoint != "" {
		if err := CheckEndpoint(s.Endpoint); err != nil {
			return err
		}
	}
	if s.URL != "" {
		if err := CheckURL(s.URL); err != nil {
			return err
		}
	}
	if err := checkRoutes(s.Routes, s.Network); err != nil {
		return err
	}
	if err := checkDNS(s.DNS); err != nil {
		return err
	}
	return checkSession(s.Session)
}

// checkNetwork checks the tunnel's prefixes: one of IPv4, one of IPv6, or one of each
// with IPv4 first.
func checkNetwork(network []netip.Prefix) error {
	const rule = "the network is one IPv4 prefix, one IPv6 prefix, or both with IPv4 first, such as 10.77.0.0/16,fd12:3456:789a::/64"
	if len(network) == 0 || len(network) > 2 {
		return refuse(ErrInvalid, "the network has %d prefixes: %s", len(network), rule)
	}
	for i, p := range network {
		if err := checkPrefix("network", p); err != nil {
			return err
		}
		if i > 0 && (p.Addr().Is4() || network[0].Addr().Is6()) {
			return refuse(ErrInvalid, "network %s: %s", prefixes(network), rule)
		}
		if p.Addr().BitLen()-p.Bits() < minPrefixHosts {
			return refuse(ErrInvalid, "network %s has no room for devices: /%d or larger is needed", p, p.Addr().BitLen()-minPrefixHosts)
		}
	}
	return nil
}

// checkRoutes checks the networks behind the gateway.
func checkRoutes(routes, network []netip.Prefix) error {
	if len(routes) > maxRoutes {
		return refuse(ErrLimit, "%d routes: at most %d are possible; join neighbours into larger prefixes", len(routes), maxRoutes)
	}
	for i, p := range routes {
		if err := checkPrefix("route", p); err != nil {
			return err
		}
		if slices.Contains(routes[:i], p) {
			return refuse(ErrInvalid, "route %s stands there twice: remove one", p)
		}
		// 0.0.0.0/0 contains the network and is meant; a part of the network is not.
		for _, n := range network {
			if n.Overlaps(p) && n.Bits() <= p.Bits() {
				return refuse(ErrInvalid, "route %s lies in the tunnel's own network %s: remove it", p, n)
			}
		}
	}
	return nil
}

func checkPrefix(what string, p netip.Prefix) error {
	if !p.IsValid() || p.Addr().Is4In6() || p != p.Masked() || p.Addr().IsMulticast() {
		return refuse(ErrInvalid, "%s %s: it is written as a prefix without bits behind its length, such as 192.0.2.0/24 or 2001:db8::/32", what, p)
	}
	return nil
}

func checkDNS(servers []netip.Addr) error {
	if len(servers) > maxDNS {
		return refuse(ErrLimit, "%d DNS servers: at most %d are possible", len(servers), maxDNS)
	}
	for _, a := range servers {
		if !a.IsValid() || a.Is4In6() || a.Zone() != "" || a.IsUnspecified() || a.IsMulticast() {
			return refuse(ErrInvalid, "DNS server %s: it is an IPv4 or IPv6 address of one host", a)
		}
	}
	return nil
}

func checkSession(d time.Duration) error {
	if d < minSession || d > maxSession {
		return refuse(ErrInvalid, "session length %s: it is from %s to %s", d, minSession, maxSession)
	}
	return nil
}

// checkTags gives the tags in order.
func checkTags(tags []string) ([]string, error) {
	if len(tags) > maxTags {
		return nil, refuse(ErrLimit, "%d tags: a device has at most %d", len(tags), maxTags)
	}
	if len(tags) == 0 {
		return nil, nil
	}
	for _, tag := range tags {
		if err := CheckTag(tag); err != nil {
			return nil, err
		}
	}
	return slices.Compact(slices.Sorted(slices.Values(tags))), nil
}

func checkSealed(what string, s Sealed) error {
	if len(s) == 0 {
		return refuse(ErrInvalid, "%s is missing", what)
	}
	if len(s) > maxSealed {
		return refuse(ErrLimit, "%s has %d sealed bytes: at most %d are possible", what, len(s), maxSealed)
	}
	return nil
}

// prefixes writes a list as flags take it.
func prefixes(list []netip.Prefix) string {
	var b strings.Builder
	for i, p := range list {
		if i > 0 {
			b.WriteByte(',')
		}
		fmt.Fprint(&b, p)
	}
	return b.String()
}
