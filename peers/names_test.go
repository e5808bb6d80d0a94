package peers

import (
	"errors"
	"net/netip"
	"strings"
	"testing"
)

func TestNames(t *testing.T) {
	checks := map[string]struct {
		check     func(string) error
		good, bad []string
	}{
		"user": {CheckUserName,
			[]string{"a", "alice", "Alice.B-c_d", "alice@example.com", "7of9", strings.Repeat("a", 64)},
			[]string{"", "-a", ".a", "@a", "a b", "a/b", "a:b", "a,b", "a\n", "é", "a\x00", "10.0.0.1", "1.2.3.4", "*", strings.Repeat("a", 65)}},
		"device": {CheckDeviceName,
			[]string{"a", "Alices-iPhone", "pixel_8.work", "0", strings.Repeat("a", 32)},
			[]string{"", ".", "..", "-a", "_a", "a b", "a/b", "a:b", "a,b", "a@b", "a\n", "é", strings.Repeat("a", 33)}},
		"tag": {CheckTag,
			[]string{"tag:a", "tag:web-1", "tag:" + strings.Repeat("a", 60)},
			[]string{"", "tag:", "web", "tag:1", "tag:-a", "tag:Web", "tag:a b", "Tag:a", "tag:a:b", "tag:" + strings.Repeat("a", 61)}},
		"endpoint": {CheckEndpoint,
			[]string{"vpn.example.com:51820", "localhost:1", "192.0.2.1:65535", "[2001:db8::1]:51820", "a-b.c:1"},
			[]string{"", "vpn.example.com", "vpn.example.com:", ":51820", "vpn.example.com:0", "vpn.example.com:65536", "vpn.example.com:051", "2001:db8::1:51820",
				"[2001:db8::1]", "[fe80::1%eth0]:1", "[192.0.2.1]:1", "192.0.2:1", "1.2.3.256:1", "-a.com:1", "a-.com:1", "a..b:1", ".a:1", "a.:1", "a b:1", "a\n:1", "a:1\n", "a_b:1", "a:b:1",
				strings.Repeat("a", 64) + ":1", strings.Repeat("a.", 127) + "b:1"}},
		"URL": {CheckURL,
			[]string{"https://vpn.example.com", "https://vpn.example.com:8443", "https://192.0.2.1:1", "https://[2001:db8::1]", "https://[2001:db8::1]:8443"},
			[]string{"", "vpn.example.com", "http://vpn.example.com", "https://", "https://a/", "https://a/b", "https://a?b", "https://a#b", "https://u@a", "https://a:0", "https://a:", "https://2001:db8::1", "https://a\"b", "HTTPS://a"}},
	}
	for name, c := range checks {
		for _, s := range c.good {
			if err := c.check(s); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
		for _, s := range c.bad {
			err := c.check(s)
			if !errors.Is(err, ErrInvalid) {
				t.Errorf("%s %q: got %v, want ErrInvalid", name, s, err)
			} else if strings.ContainsAny(err.Error(), "\n\x00") || len(err.Error()) > 400 {
				t.Errorf("%s %q: the error repeats it as it is: %v", name, s, err)
			}
		}
	}
}

func FuzzNames(f *testing.F) {
	for _, s := range []string{"alice", "alice@example.com", "tag:web", "vpn.example.com:51820", "https://[2001:db8::1]:8443", "a\nb"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		user := CheckUserName(s) == nil
		for name, ok := range map[string]bool{"user": user, "device": CheckDeviceName(s) == nil, "tag": CheckTag(s) == nil, "endpoint": CheckEndpoint(s) == nil, "URL": CheckURL(s) == nil} {
			if ok && (len(s) > 300 || strings.ContainsAny(s, " \t\r\n\x00\"'`$;,#=\\<>&") || strings.ContainsFunc(s, func(r rune) bool { return r > 126 })) {
				t.Fatalf("%q is a %s", s, name)
			}
		}
		if user {
			if _, err := netip.ParseAddr(s); err == nil {
				t.Fatalf("the address %q is a user", s)
			}
		}
	})
}

// A name that only looks like hers finds nobody.
func TestNamesAreFoundInTheirSpelling(t *testing.T) {
	c := newCluster(t)
	enrol(c, "Kate", "Kitchen-iMac")
	u := c.View().UserByName("kATE")
	if u == nil || c.View().DeviceByName(u.ID, "kITCHEN-IMAC") == nil {
		t.Fatal("the case of ASCII letters counts")
	}
	for _, name := range []string{"\u212aate", "Kate ", " Kate", "Kate\x00", "Kat\u0435", "\uff4bate", "Kate\u200b", ""} {
		if c.View().UserByName(name) != nil {
			t.Errorf("%q finds Kate", name)
		}
	}
	for _, name := range []string{"\u212aitchen-iMac", "Kitchen\u2010iMac", "Kitchen-\u0130Mac", ""} {
		if c.View().DeviceByName(u.ID, name) != nil {
			t.Errorf("%q finds the device", name)
		}
	}
	if r := c.do(UserAdd{id("x"), "\u212aate", nil}); !errors.Is(r.Err, ErrInvalid) {
		t.Error(r.Err)
	}
}

// An address is a device's in the one spelling that WireGuard delivers, or mapped into
// IPv6, which means the same address; with a zone it is of a link, which the tunnel is not.
func TestAddressesAreFoundInTheirSpelling(t *testing.T) {
	c := newCluster(t)
	enrol(c, "alice", "laptop")
	for s, want := range map[string]bool{
		"10.77.0.2": true, "::ffff:10.77.0.2": true, "fd00:77::2": true, "fd00:77:0:0::2": true,
		"::10.77.0.2": false, "64:ff9b::10.77.0.2": false, "fd00:77::2%wg0": false, "fd00:77::1:0:0:2": false,
		"::ffff:10.77.0.2%wg0": true, // there is no zone in IPv4
	} {
		if got := c.View().DeviceByAddr(netip.MustParseAddr(s)) != nil; got != want {
			t.Errorf("%s: %v", s, got)
		}
	}
	for _, s := range []string{"::ffff:192.0.2.0/120", "192.0.2.1/24", "224.0.0.0/4", "ff00::/8"} {
		routes := []netip.Prefix{netip.MustParsePrefix(s)}
		refused(c, Configure{Routes: &routes}, ErrInvalid)
	}
	for _, s := range []string{"::ffff:192.0.2.1", "fe80::1%eth0", "0.0.0.0", "ff02::1"} {
		dns := []netip.Addr{netip.MustParseAddr(s)}
		refused(c, Configure{DNS: &dns}, ErrInvalid)
	}
}

// What is private or this host's own can be told from the address alone; a name cannot.
func TestNotPublic(t *testing.T) {
	for endpoint, want := range map[string]string{
		"192.0.2.1:51820": "", "[2001:db8::1]:51820": "", "vpn.example.com:51820": "", "": "", "100.128.0.1:1": "",
		"10.0.0.1:1": "private", "172.16.9.9:1": "private", "192.168.1.1:1": "private", "169.254.1.1:1": "private",
		"[fd00::1]:1": "private", "[fe80::1]:1": "private", "[::ffff:10.0.0.1]:1": "private",
		"127.0.0.1:1": "no address", "[::1]:1": "no address", "0.0.0.0:1": "no address", "100.64.0.1:1": "NAT",
	} {
		if got := NotPublic(endpoint); (got == "") != (want == "") || !strings.Contains(got, want) {
			t.Errorf("%q: %q; want %q", endpoint, got, want)
		}
	}
}
