package acltest

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strings"
	"time"

	"vpnd/acl/rules"
)

// Large is a policy, with its devices, of the sizes that are promised: two devices a user,
// groups that list a hundred each, and grants from a group to a host of its own or, every
// second one, to ports of Target: packets to that host meet them all.
type Large struct {
	Devices, Groups, Grants int

	Target string // an address behind the gateway
	// More users in a group, by its number; each stands at the end of its list.
	More map[int][]string
	// Extra are further grants.
	Extra []string
}

// LargeOptions are the options of a Large policy.
var LargeOptions = rules.Options{
	Network: []netip.Prefix{netip.MustParsePrefix("10.64.0.0/12"), netip.MustParsePrefix("fd77::/64")},
	Gateway: []netip.Addr{netip.MustParseAddr("10.64.0.1"), netip.MustParseAddr("fd77::1")},
	Session: 12 * time.Hour,
}

// Addr is the i-th device's address.
func (l Large) Addr(i int, is4 bool) netip.Addr {
	i += 2
	if is4 {
		return netip.AddrFrom4([4]byte{10, byte(64 + i>>16), byte(i >> 8), byte(i)})
	}
	return netip.AddrFrom16([16]byte{0: 0xfd, 1: 0x77, 13: byte(i >> 16), 14: byte(i >> 8), 15: byte(i)})
}

// User is the name of a user.
func (l Large) User(i int) string { return fmt.Sprintf("u%d", i) }

// Subject is the i-th device.
func (l Large) Subject(i int) rules.Subject {
	return rules.Subject{Device: fmt.Sprintf("u%d/d%d", i/2, i%2), User: l.User(i / 2), Addrs: []netip.Addr{l.Addr(i, true), l.Addr(i, false)}}
}

// Subjects are all devices.
func (l Large) Subjects() []rules.Subject {
	list := make([]rules.Subject, l.Devices)
	for i := range list {
		list[i] = l.Subject(i)
	}
	return list
}

// Host is the address of the host that the i-th grant leads to; an odd one leads to Target.
func (l Large) Host(i int) netip.Addr {
	if i%2 == 1 {
		return netip.MustParseAddr(l.Target)
	}
	return netip.AddrFrom4([4]byte{172, 16, byte(i / 250), byte(i%250 + 1)})
}

// Text is the policy.
func (l Large) Text() string {
	var b strings.Builder
	b.WriteString("// A policy as large as is promised.\n{\n  \"groups\": {\n")
	for g := range l.Groups {
		fmt.Fprintf(&b, "    \"group:g%d\": [", g)
		n, rng := 100, rand.New(rand.NewPCG(1, uint64(g)))
		if g%10 == 9 { // and some are nested
			fmt.Fprintf(&b, "\"group:g%d\", \"group:g%d\", ", g-1, g-2)
			n -= 2
		}
		for k := range n {
			if k > 0 {
				b.WriteString(", ")
			}
			fmt.Fprintf(&b, "%q", l.User(rng.IntN(max(1, l.Devices/2))))
		}
		for _, u := range l.More[g] {
			fmt.Fprintf(&b, ", %q", u)
		}
		b.WriteString("],\n")
	}
	b.WriteString("  },\n  \"hosts\": {\n")
	for h := 0; h < l.Grants; h += 2 {
		fmt.Fprintf(&b, "    \"h%d\": %q,\n", h, l.Host(h))
	}
	b.WriteString("  },\n  \"grants\": [\n")
	for g := range l.Grants {
		switch src := fmt.Sprintf("\"group:g%d\"", g%l.Groups); {
		case g%2 == 1:
			fmt.Fprintf(&b, "    {\"src\": [%s], \"dst\": [%q], \"ip\": [\"tcp:%d\", \"udp:%d-%d\"]},\n", src, l.Target, 10_000+g, 20_000+8*g, 20_003+8*g)
		case g%20 == 0: // some share a network
			fmt.Fprintf(&b, "    {\"src\": [%s], \"dst\": [\"172.16.%d.0/24\"], \"ip\": [\"udp:53\", \"icmp\"]},\n", src, g/20%4)
		default:
			fmt.Fprintf(&b, "    {\"src\": [%s], \"dst\": [\"h%d\"], \"ip\": [\"tcp:%d\", \"tcp:8000-8100\"]},\n", src, g, 1000+g)
		}
	}
	for _, x := range l.Extra {
		fmt.Fprintf(&b, "    %s,\n", x)
	}
	b.WriteString("  ],\n}\n")
	return b.String()
}
