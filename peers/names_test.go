package peers

import (
	"crypto/ecdh"
	"encoding/base64"
	"errors"
	"net/netip"
	"regexp"
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

func TestParseKey(t *testing.T) {
	good := key("good").String()
	if k, err := ParseKey(good); err != nil || k != key("good") {
		t.Errorf("ParseKey(%q) = %v, %v", good, k, err)
	}
	// The last character has two bits that no key needs.
	i := strings.IndexByte(alphabet, good[42])
	stray := good[:42] + string(alphabet[i|1]) + "="
	if i&1 == 1 {
		t.Fatal("the test's key is no good for this")
	}
	for name, s := range map[string]string{
		"empty": "", "short": good[:43], "long": good + "=", "space": " " + good[:43], "newline inside": good[:20] + "\n" + good[20:43],
		"newline": good + "\n", "stray bits": stray, "no padding": good[:43] + "A", "url alphabet": strings.Repeat("-", 43) + "=", "all zero": Key{}.String(),
		"not base64": strings.Repeat("*", 44),
	} {
		if _, err := ParseKey(s); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: got %v, want ErrInvalid", name, err)
		}
	}
}

const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"

// The table that Apply uses is right: crypto/ecdh refuses each of its points, also with
// the ignored bit set, and ParseKey refuses them.
func TestLowOrderPoints(t *testing.T) {
	private, err := ecdh.X25519().NewPrivateKey([]byte(strings.Repeat("k", 32)))
	if err != nil {
		t.Fatal(err)
	}
	for _, k := range lowOrder {
		for _, high := range []byte{0, 0x80} {
			k := k
			k[31] |= high
			public, err := ecdh.X25519().NewPublicKey(k[:])
			if err != nil {
				t.Fatal(err)
			}
			if _, err := private.ECDH(public); err == nil {
				t.Errorf("%x is no low-order point", k)
			}
			if usable(k) == nil {
				t.Errorf("usable accepts %x", k)
			}
			if _, err := ParseKey(k.String()); err == nil {
				t.Errorf("ParseKey accepts %x", k)
			}
		}
	}
}

func TestParseID(t *testing.T) {
	want := id("x")
	if got, err := ParseID(want.String()); err != nil || got != want {
		t.Errorf("ParseID: %v %v", got, err)
	}
	for _, s := range []string{"", "ab", strings.Repeat("g", 32), strings.ToUpper(want.String()) + "", want.String() + "0"} {
		if _, err := ParseID(s); !errors.Is(err, ErrInvalid) {
			t.Errorf("ParseID(%q): %v", s, err)
		}
	}
}

func FuzzParseKey(f *testing.F) {
	f.Add(key("x").String())
	f.Add(Key{}.String())
	f.Add("AAAA\nAAAA")
	f.Fuzz(func(t *testing.T, s string) {
		k, err := ParseKey(s)
		if err != nil {
			if !errors.Is(err, ErrInvalid) {
				t.Fatalf("%q: %v", s, err)
			}
			return
		}
		if k.String() != s {
			t.Fatalf("%q is another spelling of %q", s, k)
		}
		if b, err := base64.StdEncoding.Strict().DecodeString(s); err != nil || len(b) != 32 {
			t.Fatalf("%q: %v", s, err)
		}
		// The table and the key exchange agree.
		if checkKey(k) != nil || usable(k) != nil {
			t.Fatalf("%q is a low-order point", s)
		}
	})
}

func FuzzNames(f *testing.F) {
	for _, s := range []string{"alice", "alice@example.com", "tag:web", "vpn.example.com:51820", "https://[2001:db8::1]:8443", "a\nb"} {
		f.Add(s)
	}
	tunnel := regexp.MustCompile(`^[a-zA-Z0-9_=+.-]{1,15}$`)
	f.Fuzz(func(t *testing.T, s string) {
		user, dev := CheckUserName(s) == nil, CheckDeviceName(s) == nil
		for name, ok := range map[string]bool{"user": user, "device": dev, "tag": CheckTag(s) == nil, "endpoint": CheckEndpoint(s) == nil, "URL": CheckURL(s) == nil} {
			if ok && (len(s) > 300 || strings.ContainsAny(s, " \t\r\n\x00\"'`$;,#=\\<>&") || strings.ContainsFunc(s, func(r rune) bool { return r > 126 })) {
				t.Fatalf("%q is a %s", s, name)
			}
		}
		if user {
			if n := TunnelName(s, "phone"); !tunnel.MatchString(n) {
				t.Fatalf("a tunnel is named %q", n)
			}
			if _, err := netip.ParseAddr(s); err == nil {
				t.Fatalf("the address %q is a user", s)
			}
		}
		if dev {
			if n := TunnelName("alice", s); !tunnel.MatchString(n) {
				t.Fatalf("a tunnel is named %q", n)
			}
		}
	})
}
