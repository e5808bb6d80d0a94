package filter

import (
	"net/netip"
	"testing"
	"time"
)

const simple = `{
	"hosts": {"wiki": "192.168.50.2", "wiki6": "fd50::2"},
	"grants": [
		{"src": ["autogroup:member"], "dst": ["app"], "ip": ["tcp:8080"]},
		{"src": ["alice"], "dst": ["wiki", "wiki6"], "ip": ["tcp:80", "tcp:443", "udp:53", "icmp"]},
	],
}`

func families(t *testing.T, b *bed, f func(t *testing.T, gw, alice, bob, wiki netip.Addr)) {
	t.Run("IPv4", func(t *testing.T) { b.t = t; f(t, gw4, alice4, bob4, wiki4) })
	t.Run("IPv6", func(t *testing.T) { b.t = t; f(t, gw6, alice6, bob6, wiki6) })
}

func TestSignIn(t *testing.T) {
	b := newBed(t, simple, nil)
	runNFT(t, "list", "ruleset") // runNFT(8) must be able to read it
	for _, gw := range []netip.Addr{gw4, gw6} {
		b.serve("", "portal", gw, portalPort)
		b.serve("", "app", gw, appPort)
		b.serve("", "ssh", gw, 22)
	}
	for _, w := range []netip.Addr{wiki4, wiki6} {
		for _, port := range []uint16{80, 443, 53, 5432} {
			b.serve("wiki", "wiki", w, port)
		}
	}
	families(t, b, func(t *testing.T, gw, alice, bob, wiki netip.Addr) {
		closed := func(when string) {
			t.Helper()
			got, err := b.tcp("alice", gw, 80)
			b.want(when+": portal", "portal", got, err)
			got, err = b.tcp("alice", wiki, 80)
			b.want(when+": web anywhere", "portal", got, err)
			got, err = b.tcp("alice", gw, appPort)
			b.want(when+": app", "portal", got, err)
			got, err = b.tcp("alice", wiki, 443)
			b.refused(when+": wiki:443", got, err)
			got, err = b.tcp("alice", gw, 22)
			b.refused(when+": ssh", got, err)
			got, err = b.udp("alice", wiki, 53)
			b.refused(when+": dns", got, err)
			if b.ping("alice", wiki) == nil {
				t.Error(when + ": ping passes")
			}
			if b.ping("alice", gw) == nil {
				t.Error(when + ": ping of the gateway passes")
			}
		}
		closed("before sign-in")
		s := b.signIn("alice", time.Hour)
		got, err := b.tcp("alice", gw, appPort)
		b.want("app", "app", got, err)
		got, err = b.tcp("alice", wiki, 80)
		b.want("wiki:80", "wiki", got, err)
		got, err = b.tcp("alice", wiki, 443)
		b.want("wiki:443", "wiki", got, err)
		got, err = b.udp("alice", wiki, 53)
		b.want("dns", "wiki:x", got, err)
		if err := b.ping("alice", wiki); err != nil {
			t.Errorf("ping: %v", err)
		}
		got, err = b.tcp("alice", gw, 80)
		b.want("portal", "portal", got, err)
		got, err = b.tcp("alice", wiki, 5432)
		b.refused("a port that is not granted", got, err)
		got, err = b.tcp("bob", wiki, 443)
		b.refused("bob", got, err)
		b.signOut(s)
		closed("after sign-out")
	})
}
