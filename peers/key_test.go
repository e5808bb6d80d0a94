package peers

import (
	"crypto/ecdh"
	"encoding/base64"
	"errors"
	"strings"
	"testing"
)

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

const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"

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
