package filter

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"vpnd/internal/dataplane"
)

// A foreign table rewrites destinations before our verdict (Docker's and most others: -100),
// or behind it.
var foreignPriorities = []string{"-150", "dstnat", "-50", "50"}

// TestForeignDNAT: the verdict holds for where a packet really goes, whatever somebody
// else's table makes of its destination.
func TestForeignDNAT(t *testing.T) {
	b := newBed(t, `{
		"hosts": {"granted": "192.168.50.2", "granted6": "fd50::2", "asked": "192.168.50.9", "asked6": "fd50::9",
			"outside": "192.168.60.2", "outside6": "fd60::2", "gate": "192.168.60.1", "gate6": "fd60::1"},
		"grants": [
			{"src": ["alice"], "dst": ["granted", "granted6"], "ip": ["tcp:443", "udp:53"]},
			{"src": ["alice"], "dst": ["asked", "asked6"], "ip": ["tcp:7000"]},
			{"src": ["outside", "outside6"], "dst": ["gate", "gate6"], "ip": ["*"]},
			{"src": ["outside", "outside6"], "dst": ["bob"], "ip": ["tcp:9"]},
		],
	}`, nil)
	b.serveWiki()
	for _, a := range []netip.Addr{bob4, bob6} {
		b.serve("bob", "bob", a, 7)
		b.serve("bob", "bob", a, 9)
	}
	for _, a := range []netip.Addr{netip.MustParseAddr("192.168.50.1"), netip.MustParseAddr("fd50::1"), gw4, gw6} {
		b.serve("", "host", a, 2222)
	}
	for _, a := range []netip.Addr{wiki4, wiki6} {
		b.serve("wiki", "wiki", a, 22)
	}
	s, s2 := b.signIn("alice", time.Hour), b.signIn("bob", time.Hour)
	defer func() { b.signOut(s); b.signOut(s2) }()
	families(t, b, func(t *testing.T, gw, alice, bob, wiki netip.Addr) {
		v, lan, asked, gate := "ip", "192.168.50.1", "192.168.50.9", netip.MustParseAddr("192.168.60.1")
		if gw.Is6() {
			v, lan, asked, gate = "ip6", "fd50::1", "fd50::9", netip.MustParseAddr("fd60::1")
		}
		at := func(a netip.Addr, port int) string { return netip.AddrPortFrom(a, uint16(port)).String() }
		for _, prio := range foreignPriorities {
			rewrite := func(match, to string) {
				t.Helper()
				runNFT(t, "add table inet foreign; flush table inet foreign; add chain inet foreign pre { type nat hook prerouting priority "+prio+"; }; add rule inet foreign pre "+
					match+" dnat "+v+" to "+to)
				sh(t, "conntrack -F 2>/dev/null")
			}
			tcp := func(what, ns string, to netip.Addr, port uint16) {
				t.Helper()
				got, err := b.tcp(ns, to, port)
				b.refused(fmt.Sprintf("priority %s: %s", prio, what), got, err)
			}
			rewrite(fmt.Sprintf("iifname vt %s daddr %s tcp dport 443", v, wiki), at(wiki, 22))
			tcp("a granted port that leads to another one", "alice", wiki, 443)
			rewrite(fmt.Sprintf("iifname vt %s daddr %s tcp dport 443", v, wiki), at(netip.MustParseAddr(lan), 2222))
			tcp("a granted host that leads to the gateway itself", "alice", wiki, 443)
			rewrite(fmt.Sprintf("iifname vt %s daddr %s tcp dport 443", v, wiki), at(gw, 2222))
			tcp("a granted host that leads to the gateway's tunnel address", "alice", wiki, 443)
			rewrite(fmt.Sprintf("iifname vt %s daddr %s tcp dport 443", v, wiki), at(bob, 7))
			tcp("a granted host that leads to another device", "alice", wiki, 443)
			rewrite(fmt.Sprintf("iifname out0 tcp dport 8888 %s daddr %s", v, gate), at(bob, 7))
			tcp("a granted address of the gateway's that leads to a device", "stranger", gate, 8888)
			rewrite(fmt.Sprintf("iifname out0 tcp dport 8888 %s daddr %s", v, gate), at(gw, 2222))
			tcp("a granted address of the gateway's that leads to its tunnel address", "stranger", gate, 8888)

			// What is granted as it goes may go: a port that somebody publishes.
			rewrite(fmt.Sprintf("iifname vt %s daddr %s tcp dport 8443", v, lan), at(wiki, 443))
			got, err := b.tcp("alice", netip.MustParseAddr(lan), 8443)
			if prio == "-150" || prio == "dstnat" {
				b.want("priority "+prio+": to what is granted", "wiki", got, err)
			}
			if prio == "dstnat" {
				c := b.open("alice", netip.MustParseAddr(lan), 8443)
				b.alive("a rewritten flow", c)
				b.update(dataplane.Change{Rules: b.state.Rules.With(nil, nil)})
				b.alive("after a change that concerns others", c)
				b.signOut(s)
				b.dead("a rewritten flow, after the sign-out", c)
				s = b.signIn("alice", time.Hour)
			}
			// And what the rewriting takes away from a grant is as good as not granted.
			rewrite(fmt.Sprintf("iifname vt %s daddr %s tcp dport 7000", v, asked), at(wiki, 22))
			tcp("a granted host that leads to another one", "alice", netip.MustParseAddr(asked), 7000)
			rewrite(fmt.Sprintf("iifname out0 tcp dport 9999 %s daddr %s", v, gate), at(bob, 9))
			if got, err := b.tcp("stranger", gate, 9999); prio == "-150" || prio == "dstnat" {
				b.want("priority "+prio+": from outside to what is granted", "bob", got, err)
			}
			runNFT(t, "delete table inet foreign")
		}
	})
}
