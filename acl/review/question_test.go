package review_test

import (
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"vpnd/acl/acltest"
	"vpnd/acl/language"
	"vpnd/acl/review"
	"vpnd/acl/rules"
)

func TestParseQuestion(t *testing.T) {
	for _, test := range []struct{ destination, port, name, want string }{
		{"db:5432", "", "db", "tcp:5432"},
		{"tcp:db:5432", "", "db", "tcp:5432"},
		{"UDP:db:53", "", "db", "udp:53"},
		{"tcp:443", "", "tcp", "tcp:443"}, // a host of that name
		{"icmp:db", "", "db", "icmp"},
		{"icmp:db:*", "", "db", "icmp"},
		{"icmp:fd00::1", "", "fd00::1", "icmp"},
		{"icmp:[fd00::1]", "", "fd00::1", "icmp"},
		{"gre:db", "", "db", "47:*"},
		{"[fd00::1]:22", "", "fd00::1", "tcp:22"},
		{"udp:[fd00::1]:22", "", "fd00::1", "udp:22"},
		{"10.1.2.3:22", "", "10.1.2.3", "tcp:22"},
		{"bob/phone:22", "", "bob/phone", "tcp:22"},
		{"tag:web:22", "", "tag:web", "tcp:22"},
		{"db", "tcp:5432", "db", "tcp:5432"},
		{"db", "443", "db", "tcp:443"},
		{"fd00::1", "udp:53", "fd00::1", "udp:53"},
		{"db", "icmp", "db", "icmp"},
		{"db", "47:*", "db", "47:*"},
		{"db", "58", "db", "tcp:58"},
		{"db", "58:*", "db", "icmp"},
	} {
		name, q, err := review.ParseQuestion(test.destination, test.port)
		if err != nil || name != test.name || q.String() != test.want {
			t.Errorf("%q %q: %q %v %v", test.destination, test.port, name, q, err)
		}
	}
	for _, test := range []struct{ destination, port, says string }{
		{"db", "", "names no ports"},
		{"db:1-2", "", "one at a time"},
		{"db:22,23", "", "one at a time"},
		{"db:*", "", "one at a time"},
		{"db:ssh", "", "not a port"},
		{"db:0", "", "port 0"},
		{"db", "tcp:*", "one at a time"},
		{"db", "tcp", "one at a time"},
		{"db", "icmp:3", "no ports"},
		{"db", "tpc:3", "not a protocol"},
		{"fd00::1:22", "", "may or may not"},
	} {
		if name, q, err := review.ParseQuestion(test.destination, test.port); err == nil || !strings.Contains(err.Error(), test.says) {
			t.Errorf("%q %q: %q %v %v", test.destination, test.port, name, q, err)
		}
	}
	_, q, err := review.ParseQuestion("icmp:db", "")
	if err != nil {
		t.Fatal(err)
	}
	four, six := netip.MustParseAddr("10.1.2.3"), netip.MustParseAddr("fd00::1")
	if q.Packet(four, four).Proto != language.ProtoICMP || q.Packet(six, six).Proto != language.ProtoICMPv6 {
		t.Error("ICMP is another protocol in each family")
	}
}

func TestAddresses(t *testing.T) {
	p, err := language.Parse([]byte(`{"hosts": {"db": "10.1.2.3", "lan": "10.1.0.0/16", "pair": "10.1.2.4/31"}, "groups": {"group:a": []}}`))
	if err != nil {
		t.Fatal(err)
	}
	r, err := rules.Compile(p, acltest.Small, acltest.Few)
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"db": "10.1.2.3", "host:db": "10.1.2.3", "lan": "10.1.0.1", "pair": "10.1.2.4", "10.9.0.0/24": "10.9.0.1",
		"fd00::1": "fd00::1", "app": acltest.Small.Gateway[0].String(),
	} {
		if got, network, err := review.Addresses(r, name); err != nil || !slices.Contains(got, netip.MustParseAddr(want)) || network != slices.Contains([]string{"lan", "pair", "10.9.0.0/24"}, name) {
			t.Errorf("%s: %v %v", name, got, err)
		}
	}
	for name, want := range map[string]error{
		"alice": review.ErrNoHost, "db@": review.ErrNoHost, "group:a": review.ErrNotOne, "tag:web": review.ErrNotOne, "*": review.ErrNotOne, "autogroup:self": review.ErrNotOne,
		"autogroup:internet": nil, "10.1.2.3/24": nil, "": nil,
	} {
		if got, _, err := review.Addresses(r, name); err == nil || want != nil && !errors.Is(err, want) {
			t.Errorf("%s: %v %v", name, got, err)
		}
	}
}

// FuzzParseQuestion: what is asked about is one flow, and written again it is the same.
func FuzzParseQuestion(f *testing.F) {
	for _, s := range []string{"db:5432", "udp:db:53", "icmp:[fd00::1]", "[fd00::1]:22", "47:*", "tcp::", "icmp:", ""} {
		f.Add(s, "")
		f.Add("db", s)
	}
	f.Fuzz(func(t *testing.T, destination, port string) {
		_, q, err := review.ParseQuestion(destination, port)
		if err != nil {
			return
		}
		_, again, err := review.ParseQuestion("x", q.String())
		if err != nil || again.String() != q.String() {
			t.Fatalf("%q %q is %s, which is %s, %v", destination, port, q, again, err)
		}
		q.Packet(netip.MustParseAddr("10.64.0.3"), netip.MustParseAddr("fd77::3"))
	})
}
