package peers

import (
	"bytes"
	"crypto/ecdh"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"math/big"
	"os"
	"slices"
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

// vectors are the public keys of testdata/x25519-public.txt with their flags.
func vectors(t *testing.T) map[Key][]string {
	t.Helper()
	text, err := os.ReadFile("testdata/x25519-public.txt")
	if err != nil {
		t.Fatal(err)
	}
	list := map[Key][]string{}
	for line := range strings.Lines(string(text)) {
		if line[0] == '#' {
			continue
		}
		f := strings.Fields(line)
		b, err := hex.DecodeString(f[0])
		if err != nil || len(b) != 32 {
			t.Fatalf("%q: %v", line, err)
		}
		list[Key(b)] = f[1:]
	}
	if len(list) < 60 {
		t.Fatalf("there are only %d vectors", len(list))
	}
	return list
}

// Wycheproof's vectors: what is not canonical or of low order is refused by ParseKey and
// by Apply, everything else is taken.
func TestWycheproof(t *testing.T) {
	p := new(big.Int).Sub(new(big.Int).Lsh(big.NewInt(1), 255), big.NewInt(19))
	private, err := ecdh.X25519().NewPrivateKey([]byte(strings.Repeat("k", 32)))
	if err != nil {
		t.Fatal(err)
	}
	c := newCluster(t)
	must(c, UserAdd{id("alice"), "alice", nil})
	refusedKeys := 0
	for k, flags := range vectors(t) {
		number := Key{}
		for i, b := range k {
			number[31-i] = b
		}
		canonical := new(big.Int).SetBytes(number[:]).Cmp(p) < 0
		if canonical != k.canonical() || slices.Contains(flags, "NonCanonicalPublic") && canonical {
			t.Errorf("%x %v: canonical is %v", k, flags, k.canonical())
		}
		plain := k.plain()
		if !plain.canonical() {
			t.Errorf("%x: its plain form is %x", k, plain)
		}
		if !slices.Contains(plain.spellings(), k) {
			t.Errorf("%x is no spelling of %x", k, plain)
		}
		public, err := ecdh.X25519().NewPublicKey(k[:])
		if err != nil {
			t.Fatal(err)
		}
		shared, err := private.ECDH(public)
		low := slices.Contains(flags, "LowOrderPublic") || slices.Contains(flags, "ZeroSharedSecret")
		if low != (err != nil) {
			t.Errorf("%x %v: %v", k, flags, err)
		}
		// All spellings are one key to X25519.
		for _, s := range k.spellings() {
			public, err := ecdh.X25519().NewPublicKey(s[:])
			if err != nil {
				t.Fatal(err)
			}
			if again, _ := private.ECDH(public); !bytes.Equal(shared, again) {
				t.Errorf("%x and %x are two keys", k, s)
			}
		}
		d := device("alice", "d"+k.String()[:2])
		d.ID, d.PublicKey = id(k.String()), k
		d.Name = hex.EncodeToString(k[:16])
		_, err = ParseKey(k.String())
		r := c.do(DeviceAdd{id("alice"), d})
		if good := canonical && !low; good != (err == nil) || good != (r.Err == nil) {
			t.Errorf("%x %v: ParseKey says %v, Apply %v", k, flags, err, r.Err)
		}
		if r.Err != nil {
			refusedKeys++
			continue
		}
		must(c, DeviceRemove{d.ID})
	}
	if refusedKeys < 20 {
		t.Errorf("only %d were refused", refusedKeys)
	}
}

// A key that was revoked does not come back under another spelling, whichever of the two
// level 1 has let in.
func TestOneKeyHasOneSpelling(t *testing.T) {
	other := func(k Key) Key { k[31] ^= 0x80; return k }
	c := emptyCluster(t)
	must(c, Init{settings(), "{}"})
	must(c, UserAdd{id("alice"), "alice", nil})
	add := func(name string, k Key) Result {
		d := device("alice", name)
		d.PublicKey = k
		return c.do(DeviceAdd{id("alice"), d})
	}
	small := Key{7}
	for name, k := range map[string]Key{"plain": key("plain"), "odd": other(key("odd")), "gone": other(key("gone")), "small": nearP(0xed + 7), "twin": key("twin"), "twin2": other(key("twin"))} {
		if r := add(name, k); r.Err != nil {
			t.Fatal(name, r.Err)
		}
	}
	must(c, DeviceRemove{id("alice/gone")})
	must(c, Upgrade{Level: newestLevel})
	for name, want := range map[string]struct {
		k   Key
		err error
	}{
		"another spelling":     {other(key("plain")), ErrInvalid},
		"new, not canonical":   {other(key("new")), ErrInvalid},
		"of one in use":        {key("odd"), ErrKeyTaken},
		"of one revoked":       {key("gone"), ErrKeyTaken},
		"of a small one":       {small, ErrKeyTaken},
		"of the gateway":       {other(key("gateway")), ErrInvalid},
		"the gateway's itself": {key("gateway"), ErrKeyTaken},
	} {
		if r := add("x", want.k); !errors.Is(r.Err, want.err) {
			t.Errorf("%s: %v", name, r.Err)
		}
		if r := c.do(DeviceRotate{id("alice/plain"), want.k, Sealed("psk")}); !errors.Is(r.Err, want.err) {
			t.Errorf("%s, rotated: %v", name, r.Err)
		}
	}
	var names []string
	for d := range c.View().SecondSpellings() {
		names = append(names, d.Name)
	}
	slices.Sort(names)
	if want := []string{"odd", "small", "twin", "twin2"}; !slices.Equal(names, want) {
		t.Errorf("found are %v, want %v", names, want)
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
