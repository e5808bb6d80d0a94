package filter

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"vpnd/acl/language"
	"vpnd/internal/dataplane"
)

// The provisional addresses of resources a, b, c … are the first of each upper half.
func serviceAddr(n int, v6 bool) netip.Addr {
	if v6 {
		return netip.AddrFrom16([16]byte{0: 0xfd, 1: 0x77, 8: 0x80, 15: byte(n)})
	}
	return netip.AddrFrom4([4]byte{10, 77, 128, byte(n)})
}

// service is the nth published resource, as a plane is told of it.
func service(name string, n int, ports []language.Span, hosts ...netip.Addr) dataplane.Service {
	return dataplane.Service{Name: name, Addrs: []netip.Addr{serviceAddr(n, false), serviceAddr(n, true)}, Ports: ports, Hosts: hosts}
}

func tcpPort(p uint16) []language.Span { return []language.Span{{Proto: 6, First: p, Last: p}} }

const published = `{
	"resources": {
		"a": {"to": "192.168.50.2", "ports": ["tcp:443", "udp:53"]},
		"b": {"to": "192.168.50.2:443", "port": 4430},
		"c": {"to": "192.168.50.2:80"},
		"d": {"to": "nowhere.lan:443"},
	},
	"grants": [
		{"src": ["alice"], "dst": ["a", "b", "d"]},
		{"src": ["bob"], "dst": ["b"]},
		{"src": ["alice"], "dst": ["c"], "mfa": "off"},
	],
}`

// servicesOf are the resources of published in the family of their target.
func servicesOf(wiki netip.Addr) []dataplane.Service {
	a := service("a", 1, []language.Span{{Proto: 6, First: 443, Last: 443}, {Proto: 17, First: 53, Last: 53}}, wiki)
	b := service("b", 2, tcpPort(4430), wiki)
	b.ToPort = 443
	return []dataplane.Service{a, b, service("c", 3, tcpPort(80), wiki), service("d", 4, tcpPort(443))}
}

// TestServices: a grant of a resource opens it by its service address, and nothing else.
func TestServices(t *testing.T) {
	b := newBed(t, published, nil)
	b.serveWiki()
	for _, gw := range []netip.Addr{gw4, gw6} {
		b.serve("", "portal", gw, portalPort)
	}
	families(t, b, func(t *testing.T, gw, alice, bob, wiki netip.Addr) {
		at := func(n int) netip.Addr { return serviceAddr(n, gw.Is6()) }
		refusedTCP := func(what, ns string, a netip.Addr, port uint16) {
			t.Helper()
			begin := time.Now()
			got, err := b.tcp(ns, a, port)
			b.refused(what, got, err)
			if d := time.Since(begin); d > patience/2 && ns == "alice" {
				t.Errorf("%s: refused after %v only", what, d)
			}
		}
		b.update(dataplane.Change{Services: servicesOf(wiki)})
		refusedTCP("without a session", "alice", at(1), 443)
		if _, err := b.udp("alice", at(1), 53); err == nil {
			t.Error("UDP without a session")
		}
		b.alive("off", b.open("alice", at(3), 80))
		got, err := b.tcp("bob", at(3), 80)
		b.want("bob's browser", "portal", got, err)

		s, s2 := b.signIn("alice", time.Hour), b.signIn("bob", time.Hour)
		tcp, udp := b.open("alice", at(1), 443), b.dialUDP("alice", at(1), 53)
		b.alive("tcp", tcp)
		b.alive("udp", udp)
		b.alive("another port inside", b.open("alice", at(2), 4430))
		b.alive("bob, too", b.open("bob", at(2), 4430))
		refusedTCP("the target itself", "alice", wiki, 443)
		refusedTCP("not granted by this name", "bob", at(1), 443)
		refusedTCP("the target's port", "alice", at(2), 443)
		refusedTCP("a port of the target's that is not published", "alice", at(1), 80)
		refusedTCP("nobody knows where it is", "alice", at(4), 443)
		refusedTCP("no resource", "alice", at(9), 443)
		refusedTCP("from outside", "stranger", at(1), 443)
		refusedTCP("from the host", "", at(1), 443)
		if err := b.ping("alice", at(1)); err == nil {
			t.Error("a ping")
		}

		// Another target moves new flows and leaves the open one.
		moved := servicesOf(wiki)
		moved[0].Hosts = nil
		b.update(dataplane.Change{Services: moved})
		b.alive("after the target went", tcp)
		refusedTCP("after the target went", "alice", at(1), 443)
		b.update(dataplane.Change{Services: servicesOf(wiki)})

		// An address that becomes another resource's: what was open is over, whoever may open that.
		other := servicesOf(wiki)
		other[0].Name = "another"
		b.update(dataplane.Change{Services: other})
		b.dead("tcp to an address that is another resource's", tcp)
		b.alive("another flow", b.open("alice", at(2), 4430))
		tcp = b.open("alice", at(1), 443)

		b.signOut(s)
		b.dead("tcp after the sign-out", tcp)
		b.dead("udp after the sign-out", udp)
		b.signOut(s2)
	})
}

// TestComplaintsOfServices: what drops the packets of resources on this host is named.
func TestComplaintsOfServices(t *testing.T) {
	b := newBed(t, published, func(c *Config, s *dataplane.State) {
		c.RelayTCP, c.RelayUDP = relayTCP, relayUDP
		s.Services = servicesOf(wiki4)
	})
	runNFT(t, `add table inet theirs; add chain inet theirs input { type filter hook input priority 0; policy drop; }; add rule inet theirs input tcp dport { 8080, 45080 } accept`)
	got := fmt.Sprint(b.f.Complaints())
	for _, want := range []string{"resources on this host (vt, port 45081/tcp)", "resources on this host (vt, port 45082/udp)", `nft insert rule inet theirs input iifname "vt" accept`} {
		if !strings.Contains(got, want) {
			t.Errorf("it does not say %q: %s", want, got)
		}
	}
}
