package acltest

import (
	"net/netip"
	"time"

	"vpnd/acl/rules"
)

// Small is the cluster of the tests that write their own policies.
var Small = rules.Options{
	Network: []netip.Prefix{netip.MustParsePrefix("10.77.0.0/16"), netip.MustParsePrefix("fd77::/64")},
	Gateway: []netip.Addr{netip.MustParseAddr("10.77.0.1"), netip.MustParseAddr("fd77::1")},
	Session: 12 * time.Hour,
}

// Device is a device of it.
func Device(device, user string, tags []string, addrs ...string) rules.Subject {
	s := rules.Subject{Device: device, User: user, Tags: tags}
	for _, a := range addrs {
		s.Addrs = append(s.Addrs, netip.MustParseAddr(a))
	}
	return s
}

// Few are the devices that golden policies are compiled with.
var Few = []rules.Subject{
	Device("alice/laptop", "alice", nil, "10.77.0.2", "fd77::2"),
	Device("alice/phone", "alice", nil, "10.77.0.3", "fd77::3"),
	Device("bob/phone", "bob", nil, "10.77.0.4", "fd77::4"),
	Device("web1", "bob", []string{"tag:web"}, "10.77.0.5", "fd77::5"),
}

// Now is the instant around which worlds live: a Wednesday, in winter.
var Now = time.Date(2026, 3, 4, 10, 0, 0, 0, time.UTC)
